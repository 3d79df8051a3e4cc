r"""Not the manager: the dead-man's switch, a shell script that runs inside the pod and ends it when nobody else does.

RunPod has no time-to-live of its own: ``stopAfter`` and ``terminateAfter`` are accepted and never acted on
(runpodctl PR #330). So the pod's container starts this script, which watches beside vLLM and, when it is over,
deletes its own pod with the key that RunPod injects and that is good for this pod only.

It is over when

* the deadline has passed. It is an absolute moment in the pod's environment, so a container that is restarted, by
  vLLM's crash or by RunPod, has the one it had; a restarted container that is past it does not even start vLLM.
* or, with a heartbeat, nobody with the key was served for so long. The sign of life is vLLM's own count of requests
  under ``/v1`` that were answered with 2xx (``http_requests_total``), which a request without the key never raises
  (vLLM's key check stands outside the counter), and the count of tokens, which moves while one long answer runs.
  ``vllm:num_requests_running`` is not asked: it stays up for ever when all clients leave at once, as they do when
  their host dies (vllm#22545, #29928).

Decided for what is unclear:

* Nobody answers on vLLM's port: no sign of life. Before the first answer the boot time counts instead of the
  heartbeat; it starts anew with each container, so a crash loop is bounded by the deadline alone.
* vLLM serves a request with the key but its page has no such counter (another server, a future name): the heartbeat
  cannot be judged, so it holds its peace and the deadline alone decides. Killing what people use would be worse.
* The clock: read once from the ``Date`` of RunPod's API (from the machine when that is away, and asked again), then
  carried on by the kernel's uptime. A wall clock that is wrong or jumps ends no pod early and none late.
* No readable deadline: it counts as past. Such a pod was not made by us as it is, and one that ends is cheap.
* DELETE is repeated every interval for ever, whatever it answered: whoever can read the answer is still being paid
  for. ``stop`` is ordered, too, from the third refusal on, or the ninth promise (204, 404, 410) that was not kept.
  A sign of life that comes back ends the attempts.

Needs a POSIX shell with ``grep``, ``sed``, ``sort``, ``date``, ``sleep``, and curl (7.55) or python3. Keys go to them
by standard input and environment, never by argument. Nothing runs while the image is pulled, or in a container that
cannot start: for these there are the manager's pass and its audit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llmpod.backends.runpod_api import USER_AGENT
from llmpod.model import Spec

DEADLINE = "LLMPOD_DEADLINE"
_PYTHON = """\
import http.client as h,os,signal,sys
from urllib.parse import urlsplit
m,u,b,a,t=sys.argv[1:]
signal.alarm(int(t))
u=urlsplit(u)
try:
 c=(h.HTTPSConnection if u.scheme=="https" else h.HTTPConnection)(u.netloc)
 c.request(m,u.path,b or None,{"Authorization":"Bearer "+os.environ["K"],"User-Agent":a,
  "Content-Type":"application/json"})
 r=c.getresponse()
 print("HTTP %d\\nDate: %s\\n"%(r.status,r.getheader("Date","")),r.read(4000000).decode("utf-8","replace"))
except Exception as e: sys.exit("python3: "+type(e).__name__)
"""

SCRIPT = rf"""
A='{USER_AGENT} switch'
Y='{_PYTHON}'
P=8000 p=
for a do
  case $p in --port) P=$a;; esac
  case $a in --port=*) P=${{a#*=}};; esac
  p=$a
done
say() {{ echo "llmpod switch: $*" >&2; }}
num() {{ case $1 in ''|*[!0-9]*|0?*) echo "$2";; *) echo "$1";; esac; }}
D=$(num "$LLMPOD_DEADLINE" 0)
H=$(num "$LLMPOD_HEARTBEAT_SECONDS" 0)
G=$(num "$LLMPOD_BOOT_SECONDS" "$H")
I=$(num "$LLMPOD_SWITCH_SECONDS" 30)
[ "$I" -gt 0 ] || I=30

# http TOOL KEY METHOD URL BODY: status line, headers, body, within m seconds
http() {{
  case $1 in
  curl) printf 'Authorization: Bearer %s\n' "$2" | curl -sSi -m $m --noproxy '*' -A "$A" -H @- \
    -X "$3" ${{5:+-H 'Content-Type: application/json' -d "$5"}} "$4";;
  *) K=$2 python3 -I -c "$Y" "$3" "$4" "$5" "$A" $m;;
  esac
}}
has() {{ command -v "$1" >/dev/null 2>&1; }}
code() {{ c=$(printf '%s\n' "$r" | sed -n '1s/^HTTP[^ ]* *\([0-9][0-9][0-9]\).*/\1/p'); }}

# RunPod, by whichever tool gets through
api() {{
  r= c= m=20
  for w in curl python3; do
    has $w || continue
    r=$(http $w "$RUNPOD_API_KEY" "$1" "$LLMPOD_API_URL/v2/pods/$RUNPOD_POD_ID$2" "$3")
    code
    [ "$c" ] && return
  done
}}
vllm_get() {{
  w=python3 m=10
  has curl && w=curl
  r=$(http $w "$VLLM_API_KEY" GET "http://127.0.0.1:$P$1" '' 2>/dev/null)
  code
}}

# u: seconds that only go up; T + u: the time
up() {{ {{ read -r u _ </proc/uptime; }} 2>/dev/null && u=${{u%%.*}} || u=$(date +%s); }}
ask_time() {{
  api GET '' ''
  d=$(printf '%s\n' "$r" | tr -d '\r' | sed -n '/^$/q;s/^[Dd]ate: *//p')
  [ "$d" ] || return
  t=$(date -u -d "$d" +%s 2>/dev/null || python3 -I -c 'import email.utils as e,sys
print(int(e.parsedate_to_datetime(sys.argv[1]).timestamp()))' "$d" 2>/dev/null)
  t=$(num "$t" 0)
  up
  [ "$t" -gt 0 ] && T=$((t-u)) && asked=1
}}

page() {{
  vllm_get /metrics
  h=$(printf '%s\n' "$r" | grep '^http_requests_total{{' | grep 'handler="/v1' | grep 'status="2' |
    grep -v '"OPTIONS"' | sort)
  s=$h$(printf '%s\n' "$r" | grep -E '^vllm:(prompt|generation)_tokens_total[{{ ]' | sort)
}}
look() {{
  page
  if [ -z "$h" ]; then
    vllm_get /v1/models
    case $c in 2*) page;; *) return;; esac
    [ "$h" ] || s=blind$u
  fi
  [ "$last" ] || say "vLLM answers: the heartbeat counts now"
  [ "$s" = "$last" ] || beat=$u
  last=$s
}}

end() {{
  n=$((n+1))
  say "$1: deleting this pod (attempt $n)"
  api DELETE '' ''
  say "DELETE: ${{c:-no answer}}"
  case $c in 2*|404|410) [ $n -lt 9 ];; *) [ $n -lt 3 ];; esac && return
  api POST /action '{{"action":"stop"}}'
  say "stop: ${{c:-no answer}}"
}}
nap() {{
  w=$I
  for a do [ "$a" -gt 0 ] && [ "$a" -lt "$w" ] && w=$a; done
  sleep "$w"
  up
}}

watch() {{
  begun=$u last= beat=
  while :; do
    [ "$asked" ] || ask_time
    quiet=1
    if [ "$H" -gt 0 ]; then
      look
      up
      quiet=$((begun+G-u))
      [ "$beat" ] && quiet=$((beat+H-u))
    fi
    left=$((D-T-u))
    if [ $left -le 0 ]; then end 'the deadline has passed'
    elif [ $quiet -le 0 ]; then end 'nobody has used it for too long'
    else n=0; fi
    nap $left $((H>0?quiet:0))
  done
}}

n=0 asked=
up
T=$(($(date +%s)-u))
past() {{ [ $((T+u)) -ge "$D" ]; }}
while past && {{ [ "$asked" ] || ask_time; past; }}; do
  end 'the deadline has passed'
  nap
done
say "armed: deadline $D, now $((T+u)), heartbeat ${{H}}s, boot ${{G}}s, every ${{I}}s"
( trap '' HUP INT TERM; while :; do ( watch ); sleep 5; done ) &
has vllm && exec vllm serve "$@"
exec python3 -m vllm.entrypoints.openai.api_server --model "$@"
"""


@dataclass(frozen=True, slots=True)
class Switch:
    """What one pod's switch is set to.

    Args:
        deadline: epoch seconds by RunPod's clock; the pod ends itself then.
        api_url: RunPod's API as the pod reaches it.
        interval_seconds: how often it looks.
        heartbeat_seconds: without an authenticated request for so long it ends; None: only at the deadline.
        boot_seconds: from a container's start, how long vLLM may take until it answers at all.
    """

    deadline: float
    api_url: str
    interval_seconds: int = 30
    heartbeat_seconds: int | None = None
    boot_seconds: int = 0

    @property
    def env(self) -> dict[str, str]:
        """What the script reads, to be added to the pod's environment. Holds no key."""
        heartbeat = self.heartbeat_seconds or 0
        return {
            DEADLINE: str(int(self.deadline)),
            "LLMPOD_API_URL": self.api_url.rstrip("/"),
            "LLMPOD_SWITCH_SECONDS": str(self.interval_seconds),
            "LLMPOD_HEARTBEAT_SECONDS": str(heartbeat),
            "LLMPOD_BOOT_SECONDS": str(max(heartbeat, self.boot_seconds)),
        }


def can_arm(spec: Spec) -> bool:
    """Whether a pod of this specification has a switch: only the built-in preset's command is ours to wrap."""
    return spec.template_id is None


def describe(spec: Spec) -> str:
    """What the switch will do for such a pod, in one sentence for the plan."""
    if not can_arm(spec):
        return f"no dead-man's switch: template {spec.template_id} has its own command; only llmpod ends this pod"
    if spec.heartbeat_seconds is None:
        return "dead-man's switch: the pod ends itself at its deadline"
    return (
        f"dead-man's switch: the pod ends itself at its deadline, and after {spec.heartbeat_seconds} s in which"
        " nobody with the key was served"
    )


def command(args: tuple[str, ...]) -> Mapping[str, list[str]]:
    """``entrypoint`` and ``cmd`` of a create request: the script, which ends in ``vllm serve`` with these arguments.

    The word after the script is its ``$0``: what a shell calls itself in messages.
    """
    return {"entrypoint": ["/bin/sh", "-c"], "cmd": [SCRIPT, "llmpod", *args]}
