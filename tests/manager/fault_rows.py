"""Not tests: which tests show which row of the fault list (reliability-security.md, section 5).

A name is ``path::function`` below ``tests/``, without parameters. tests/manager/test_faults_table.py sees to it that
each of them exists and that no row is without one.
"""

from collections.abc import Mapping

_CREATE = "manager/test_faults_create.py::"
_DELETE = "manager/test_faults_delete.py::"
_API = "manager/test_faults_api.py::"
_LIFE = "manager/test_faults_life.py::"
_PROCESSES = "manager/test_faults_processes.py::"
_RACES = "manager/test_faults_races.py::"
_CLOCK = "manager/test_faults_clock.py::"
_FILES = "manager/test_faults_files.py::"
_REALITY = "manager/test_reality.py::"
_FIRST = "manager/test_life.py::"
_CRASH = "manager/test_proxy_crash.py::"
_SCARCE = "proxy/test_scarce.py::"
_RELOAD = "proxy/test_reload.py::"

ROWS: Mapping[int, tuple[str, ...]] = {
    14: (
        _FIRST + "test_an_unclear_create_is_found_by_name_and_never_repeated",
        _CREATE + "test_what_existed_never_overlapped",
    ),
    15: (
        _FIRST + "test_an_unclear_create_is_found_by_name_and_never_repeated",
        _CREATE + "test_a_create_call_that_is_never_answered_is_looked_for_by_its_name",
        _CREATE + "test_a_create_call_without_effect_and_without_answer_is_tried_again_after_its_grace",
    ),
    16: (
        _FIRST + "test_the_first_gpu_in_stock_is_taken_with_one_call_each",
        _FIRST + "test_no_gpu_anywhere_is_said_in_runpods_own_words_and_tried_again_later",
        _CREATE + "test_after_no_capacity_the_intent_is_closed_and_the_next_try_waits",
    ),
    17: (
        _CREATE + "test_a_pod_that_is_listed_late_is_found_within_the_grace",
        _CREATE + "test_a_pod_that_is_listed_after_its_grace_is_ended_by_the_pass_that_sees_it",
        _CREATE + "test_a_pod_that_is_listed_only_after_the_shutdown_is_ended_by_the_next_pass",
    ),
    18: (
        _FIRST + "test_one_listing_of_nothing_does_not_make_a_second_pod",
        _CREATE + "test_nothing_is_concluded_from_a_listing_that_failed",
        _CREATE + "test_nothing_is_concluded_from_a_listing_that_broke_off",
        _CREATE + "test_a_pod_is_gone_only_when_list_and_look_up_say_so_in_two_passes",
    ),
    19: (
        _FIRST + "test_a_delete_that_fails_is_repeated_until_it_is_confirmed",
        _DELETE + "test_a_delete_that_fails_is_ordered_again_by_every_pass_and_stuck_is_told",
        _DELETE + "test_a_delete_that_fails_for_hours_is_still_ordered_and_then_done",
    ),
    20: (
        _DELETE + "test_404_on_delete_soon_after_the_create_is_no_proof",
        _DELETE + "test_404_on_delete_counts_when_lag_can_no_longer_explain_it",
    ),
    21: (_DELETE + "test_a_pod_that_is_listed_after_its_delete_is_deleted_again_and_told",),
    22: (
        _API + "test_each_refusal_of_a_look_has_its_own_code_and_next_step_and_touches_nothing",
        _API + "test_a_pod_goes_on_serving_when_the_key_loses_its_rights",
        _API + "test_a_deadline_that_a_revoked_key_cannot_carry_out_stays_loud_and_is_carried_out_later",
    ),
    23: (
        _API + "test_a_deadline_comes_before_politeness",
        _API + "test_the_next_create_waits_for_as_long_as_the_provider_says",
        _API + "test_a_pass_with_nothing_to_do_makes_at_most_three_calls",
    ),
    24: (
        _LIFE + "test_a_pod_that_is_never_ready_is_ended_in_time_with_a_limited_number_of_tries",
        _LIFE + "test_a_pod_that_is_never_ready_is_ended_by_the_id_on_disk_whatever_its_name_became",
        _LIFE + "test_the_last_log_lines_of_a_pod_that_was_never_ready_are_kept",
    ),
    25: (
        _LIFE + "test_a_pod_that_was_stopped_is_replaced_and_meanwhile_requests_are_told_when_to_come_again",
        _LIFE + "test_a_pod_that_exits_by_itself_is_seen_by_the_next_pass",
        _LIFE + "test_a_container_that_restarted_is_waited_for_and_the_pod_is_kept",
    ),
    26: (
        _LIFE + "test_a_pod_that_vanished_is_replaced_where_the_user_wants_that_and_its_id_is_not_used_again",
    ),
    27: (
        _FIRST + "test_a_pod_that_vanished_stays_down_by_default",
        _LIFE + "test_a_pod_that_a_person_ended_stays_away_until_the_next_demand",
        _LIFE + "test_requests_after_a_person_ended_the_pod_are_told_so",
    ),
    28: (
        _LIFE + "test_nothing_dearer_than_the_cap_is_created",
        _LIFE + "test_of_two_types_the_one_under_the_cap_is_taken",
        _LIFE + "test_a_pod_that_turns_out_dearer_than_its_list_price_and_the_cap_is_ended",
    ),
    29: (
        "sweep/test_sweep.py::test_a_sample_of_each_situation",
        "sweep/test_sweep.py::test_every_moment_of_every_situation",
        "sweep/test_controls.py::test_a_planted_bug_is_found",
        "sweep/test_sweep.py::test_first_starts_from_nothing",
    ),
    30: (
        "backends/test_switch.py::test_a_pod_nobody_manages_ends_at_its_deadline",
        "backends/test_switch.py::test_without_requests_it_ends_after_the_heartbeat",
        "backends/test_switch_api.py::test_it_never_gives_up",
    ),
    31: (
        _FIRST + "test_fifty_passes_at_once_make_one_pod",
        _RACES + "test_two_managers_at_once_never_make_two_pods",
    ),
    32: (
        _PROCESSES + "test_the_lock_of_a_manager_that_was_killed_blocks_nobody",
        _PROCESSES + "test_what_stands_in_the_lock_file_means_nothing",
    ),
    33: (
        _PROCESSES + "test_a_stranger_with_the_recorded_pid_is_never_signalled",
        _PROCESSES + "test_a_stranger_that_really_got_the_pid_is_never_signalled",
    ),
    34: (
        _DELETE + "test_a_shutdown_during_the_create_call_of_a_pass_leaves_nothing",
        _DELETE + "test_a_shutdown_ends_a_start_that_a_person_follows_at_a_terminal",
        _DELETE + "test_a_start_after_the_shutdown_has_begun_waits_for_it_and_is_no_order",
    ),
    35: (
        _CLOCK + "test_a_deadline_that_passed_while_the_manager_slept_is_carried_out_by_the_first_pass",
        _CLOCK + "test_both_clocks_went_on_while_the_laptop_was_closed",
        _CLOCK + "test_after_the_sleep_a_pod_is_ended_although_the_list_is_refused",
    ),
    36: (
        _CLOCK + "test_a_clock_that_jumps_ends_nothing_early_and_nothing_late",
        _CLOCK + "test_a_pod_that_is_made_under_a_wrong_clock_gets_the_right_deadline",
        _CLOCK + "test_a_clock_that_jumped_ends_nothing_while_the_list_is_refused",
        _CLOCK + "test_a_wrong_clock_without_any_answer_ends_nothing_for_good",
    ),
    37: (
        _SCARCE + "test_answers_are_served_and_kept_in_memory_while_the_disk_takes_none",
        "cache/test_full_disk.py::test_a_full_disk",
        "cache/test_full_disk.py::test_a_share_of_the_disk_is_left_to_others",
    ),
    38: (_FILES + "test_a_disk_that_takes_no_state_buys_no_pod",),
    39: ("sweep/test_torn.py::test_a_sample_of_calls_that_fail",),
    40: (
        _FIRST + "test_a_torn_state_file_is_rebuilt_from_the_providers_list",
        "manager/test_lost_memory.py::test_a_lost_state_file_is_no_reason_to_buy_at_once",
    ),
    41: (
        "cache/test_damage.py::test_damaged_files",
        "cache/test_damage.py::test_no_bit_of_a_record_can_change_the_answer",
    ),
    42: (
        _SCARCE + "test_a_directory_that_is_replaced_by_a_link_is_told_and_not_followed",
        _SCARCE + "test_a_directory_that_becomes_unreadable_is_told_and_answers_go_on",
        "cache/test_directory.py::test_removing_the_directory_means_forget",
        "cache/test_directory.py::test_somebody_elses_directory_is_refused",
        "proxy/test_ops.py::test_an_unusable_directory_is_said_and_does_not_matter",
    ),
    43: (
        "cache/test_storage.py::test_order_and_entries_survive_without_the_snapshot",
        "cache/test_storage.py::test_a_start_with_many_entries",
    ),
    44: (
        _FIRST + "test_a_newer_state_file_is_left_alone_and_shutdown_still_ends_the_pod",
        _FILES + "test_a_newer_state_is_refused_and_nothing_is_created_or_changed",
        _FILES + "test_an_older_state_is_taken_over_with_its_pod_and_kept_for_a_way_back",
        _FILES + "test_every_past_schema_is_tested",
    ),
    45: (
        _FILES + "test_a_wrong_configuration_is_told_and_the_pod_lives_on_with_the_last_good_one",
        _FILES + "test_a_deadline_is_carried_out_whatever_the_configuration_says",
        _FILES + "test_a_wrong_configuration_keeps_the_proxy_as_it_is",
        _FILES + "test_without_a_last_good_configuration_a_wrong_one_starts_nothing",
        "manager/test_endings.py::test_a_wrong_configuration_does_not_keep_a_pod_alive",
        _RELOAD + "test_wrong_settings_change_nothing_and_are_told",
    ),
    46: (
        "manager/test_proxy_process.py::test_a_taken_port_costs_nothing",
        _PROCESSES + "test_a_taken_port_is_told_with_its_owner_and_costs_nothing",
    ),
    47: (
        _CRASH + "test_a_proxy_that_crashed_is_back_without_a_pass_and_without_a_new_pod",
        _CRASH + "test_a_proxy_that_crashes_again_and_again_is_given_up_and_told",
        _CRASH + "test_one_that_always_crashes_is_given_up",
        _CRASH + "test_five_within_a_minute_are_too_many_and_older_ones_do_not_count",
    ),
    48: (
        _CRASH + "test_a_proxy_whose_loop_hangs_is_ended_by_its_watchdog_and_is_back",
        "proxy/test_watchdog.py::test_a_hung_loop_ends_the_process",
        _CRASH + "test_one_that_always_crashes_is_given_up",
        "manager/test_proxy_process.py::test_a_hung_proxy_is_killed_and_replaced",
    ),
    49: (
        _CRASH + "test_a_proxy_that_crashed_is_back_without_a_pass_and_without_a_new_pod",
        "proxy/test_memory_cap.py::test_above_its_cap_it_refuses_what_comes_on_top",
    ),
    50: (_SCARCE + "test_at_the_limit_of_open_files_who_is_in_is_served_and_others_are_told",),
    51: (
        _SCARCE + "test_a_log_that_goes_nowhere_holds_nobody_up",
        _SCARCE + "test_a_log_that_nobody_reads_holds_nobody_up",
        "observe/test_observe.py::test_a_full_disk_does_not_stop_the_log",
    ),
    52: (
        "proxy/test_serve.py::test_what_outlasts_the_grace_is_told",
        "proxy/test_serve.py::test_a_second_signal_means_now",
        _RELOAD + "test_what_may_change_changes_and_nobody_is_cut_off",
    ),
    53: (
        _PROCESSES + "test_after_a_reboot_the_pod_is_kept_and_the_proxy_started_again",
        _PROCESSES + "test_after_a_reboot_in_the_middle_of_a_start_there_is_one_pod",
    ),
    54: (
        "proxy/test_edge_tls.py::test_a_renewed_certificate_is_taken_over",
        "proxy/test_edge_callers.py::test_keys_come_and_go_while_it_runs",
        _RELOAD + "test_a_file_that_others_may_read_is_refused",
    ),
    55: ("proxy/test_edge_tls.py::test_a_renewed_certificate_is_taken_over",),
}
