"""Which test shows which conformance case of the integration with GitHub.

The cases of runners on demand (8, 10, 46 to 70) are told by the tests of the runners themselves.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[3]
_HERE = "unit/forges/github"
_STEP = "unit/action/test_step.py"
_PROVEN = "unit/action/test_proven_step.py"

CASES = {
    1: (f"{_HERE}/test_webhooks.py", "a_signed_event_is_queued_once"),
    2: (f"{_HERE}/test_webhooks.py", "one_changed_byte_is_refused_before_anything_is_read"),
    4: (f"{_HERE}/test_webhooks.py", "a_ping_is_answered_and_nothing_else"),
    5: (f"{_HERE}/test_webhooks.py", "a_redelivery_is_known_to_the_next_process_too"),
    7: (f"{_HERE}/test_webhooks.py", "an_answer_does_not_wait_for_what_is_done_with_it"),
    11: (f"{_HERE}/test_webhooks.py", "what_means_nothing_here_is_ignored"),
    13: (f"{_HERE}/test_webhooks.py", "failed_deliveries_are_asked_for_once_each"),
    14: (f"{_HERE}/test_webhooks.py", "a_form_is_read_too"),
    16: (f"{_HERE}/test_client.py", "a_token_is_renewed_before_its_end"),
    17: (f"{_HERE}/test_client.py", "a_refused_token_is_replaced_once_and_the_call_repeated_once"),
    19: (f"{_HERE}/test_client.py", "each_token_is_for_one_repository_and_one_purpose"),
    20: (f"{_HERE}/test_client.py", "the_primary_limit_holds_calls_back_until_its_reset"),
    22: (f"{_HERE}/test_client.py", "the_secondary_limit_waits_a_minute_and_doubles"),
    23: (f"{_HERE}/test_client.py", "an_unchanged_answer_is_taken_from_before"),
    25: (f"{_HERE}/test_client.py", "a_renamed_repository_is_followed_with_the_same_method"),
    26: (f"{_HERE}/test_client.py", "every_call_says_who_we_are_and_which_version"),
    28: (f"{_HERE}/test_checks.py", "a_summary_of_70000_characters_fits"),
    29: (f"{_HERE}/test_checks.py", "messages_and_titles_of_annotations_are_cut"),
    31: (f"{_HERE}/test_checks.py", "a_check_follows_its_build_from_queued_to_its_end"),
    32: (f"{_HERE}/test_checks.py", "no_annotation_is_doubled_after_a_lost_answer"),
    34: (f"{_HERE}/test_handling.py", "a_rerequested_check_becomes_a_new_build_and_a_new_run"),
    35: (f"{_HERE}/test_handling.py", "a_button_does_nothing_for_who_may_not_write"),
    37: (f"{_HERE}/test_checks.py", "there_are_at_most_three_buttons_within_the_limits"),
    38: (f"{_HERE}/test_handling.py", "check_runs_of_other_apps_and_hosts_are_left_alone"),
    40: (f"{_HERE}/test_checks.py", "a_statuss_description_has_at_most_140_characters"),
    41: (f"{_HERE}/test_checks.py", "after_too_many_statuses_there_are_no_more_tries"),
    43: (f"{_HERE}/test_checks.py", "a_build_that_an_earlier_process_left_is_reported_on"),
    44: (f"{_HERE}/test_handling.py", "a_merge_group_gets_the_required_checks_at_once"),
    71: (_STEP, "a_wrong_input_is_named_and_nothing_is_built"),
    73: (_STEP, "lines_come_once_over_restarts_of_the_agent"),
    74: ("unit/api/test_http_bad_clients.py", "another_user_of_the_host_is_refused_on_the_socket"),
    76: (_STEP, "no_text_of_a_build_is_a_command"),
    77: (
        "unit/action/inputs.test.js",
        "outputs with newlines and delimiters of others are read back as they were",
    ),
    79: (_PROVEN, "of_25_errors_ten_are_annotations_of_the_step_and_all_of_the_check"),
    80: (
        "unit/action/inputs.test.js",
        "a summary that is too long is cut, and says where the rest is",
    ),
    82: (
        "integration/test_github_whole.py",
        "the_check_is_right_when_the_agent_was_killed_in_the_middle",
    ),
    83: (f"{_HERE}/test_trust.py", "a_forks_pull_request_is_never_trusted"),
    85: (f"{_HERE}/test_artifacts.py", "a_file_goes_up_in_blocks_without_a_zip"),
    86: (f"{_HERE}/test_artifacts.py", "a_block_is_repeated_alone"),
    88: (f"{_HERE}/test_artifacts.py", "a_lost_answer_to_the_end_is_no_failure"),
    89: (f"{_HERE}/test_artifacts.py", "names_are_cleaned_and_the_manifest_has_the_old_ones"),
    91: (f"{_HERE}/test_artifacts.py", "a_token_without_the_scope_is_refused_without_a_call"),
    92: (f"{_HERE}/test_artifacts.py", "neither_token_nor_signature_is_shown"),
    94: (f"{_HERE}/test_artifacts.py", "an_expired_token_is_a_warning"),
    95: (f"{_HERE}/test_artifacts.py", "an_enterprise_server_has_no_artifacts"),
    97: (_STEP, "a_silent_build_shows_where_it_is"),
    98: (f"{_HERE}/test_checks.py", "an_hour_without_github_loses_nothing"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_case_has_its_test(case: int) -> None:
    path, name = CASES[case]
    text = (TESTS / path).read_text()
    if path.endswith(".js"):
        assert f"test('{name}'" in text
    else:
        assert re.search(rf"(?m)^def test_{name}\(", text), f"{path} has no test_{name}"
