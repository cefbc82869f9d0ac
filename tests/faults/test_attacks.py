"""What has been tried to stop a node, and which test would fail if it stopped one again: small inputs; steps or octets are
counted. Tests stand with what they are of; this table finds them, and tells when one has gone.

Who tries something new against a node adds a row here, with its test.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent.parent

WATCHED: Final = {
    "commands sent ahead, answers not read": (
        "rooms/net/test_fair_turns.py::test_a_peer_that_reads_no_answers_gets_no_more_of_them",
        "rooms/net/test_fair_turns.py::test_commands_that_come_together_are_handled_a_turn_at_a_time",
        "faults/test_bad_input.py::test_a_client_that_never_reads_does_not_fill_memory",
        "rooms/net/test_errors_let_go.py::test_a_client_that_goes_while_it_is_waited_for_leaves_nothing_behind",
    ),
    "many connections that are ready at once": (
        "rooms/net/test_fair_turns.py::test_a_hundred_bursts_at_once_are_not_a_hundred_turns",
        "rooms/net/test_fair_turns.py::test_who_was_held_off_is_read_one_after_the_other",
        "rooms/net/test_turns.py::test_of_a_turn_of_the_loop_that_is_late_who_begins_has_a_moment",
        "rooms/net/test_bulk.py::test_in_a_late_turn_who_brings_much_stands_in_line",
        "rooms/net/test_bulk.py::test_whatever_passes_a_frontend_takes_turns",
        "rooms/net/test_bulk.py::test_much_passes_in_late_turns",
        "rooms/net/test_bulk.py::test_much_is_written_a_slice_at_a_time_under_tls",
    ),
    "COMPRESS that blows up": (
        "rooms/net/test_fair_turns.py::test_deflated_octets_are_inflated_a_little_in_each_turn",
        "rooms/mupdate/serving/test_limits.py::test_a_deflate_bomb_meets_the_limits_of_the_session",
    ),
    "patterns over mail that are not linear": (
        "test_patterns.py::test_twice_the_octets_are_about_twice_the_steps",
        "rooms/mime/test_growth.py::test_four_times_the_octets",
        "rooms/mime/test_bounds.py::test_marks_are_put_in_order_a_few_at_a_time",
    ),
    "scripts whose lists are long": (
        "rooms/sieve/test_growth.py::test_a_list_of_texts_is_bounded_with_its_variables",
        "rooms/sieve/test_growth.py::test_a_list_of_flags_is_no_longer_than_flags_can_be",
        "rooms/sieve/test_growth.py::test_what_is_long_costs_as_much_in_steps_and_is_not_done_in_one_slice",
        "rooms/sieve/test_growth.py::test_a_long_text_of_a_script_becomes_a_field_aside",
        "rooms/net/test_turns.py::test_nobody_waits_for_the_long_work_of_a_script",
    ),
    "many mails of one user whose script works long": (
        "rooms/backend/delivery/test_long_scripts.py::test_many_mails_of_one_user_delay_another_by_a_turn",
        "rooms/backend/delivery/test_long_scripts.py::test_who_gives_up_in_their_turn_has_it_until_the_thread_is_done",
    ),
    "scripts that make many large versions of a message": (
        "rooms/backend/delivery/test_hostile_programs.py::test_large_versions_of_messages_are_made_for_one_run_at_a_time",
    ),
    "numbers in HTML, and character sets, that there are none of": (
        "rooms/mime/test_preview.py::test_a_preview_is_the_first_words",
        "rooms/model/test_charset.py::test_a_name_that_is_no_codecs_is_not_asked_for",
    ),
    "half a command of many connections": (
        "rooms/net/test_inbound.py::test_half_lines_of_many_connections_have_an_end",
        "rooms/net/test_inbound.py::test_the_largest_of_whoever_has_most_gives_way",
    ),
    "a command that names one thing 100,000 times": (
        "rooms/wire/imap/test_bounds.py::test_too_many_are_bad_syntax",
        "rooms/frontend/test_catenate_turns.py::test_others_go_on_while_the_urls_of_a_line_are_looked_at",
    ),
    "a Cyrus whose words are endless": (
        "rooms/wire/test_dlist.py::test_a_word_that_would_be_a_literal_is_no_word",
        "rooms/wire/test_dlist.py::test_a_literal_is_looked_for_at_the_end_of_a_line",
    ),
    "a mailbox name of 400 kB": (
        "rooms/wire/test_mutf7.py::test_a_name_of_any_length_is_refused_before_it_is_composed",
        "rooms/model/test_name.py::test_a_name_as_long_as_a_command_is_refused_by_its_length",
    ),
    "thousands of SETACL": (
        "rooms/backend/test_limits.py::test_identifiers_of_an_access_list",
        "rooms/model/test_acl.py::test_thousands_of_lists_leave_nothing_behind",
    ),
    "RENAME of hundreds of mailboxes with long access lists": (
        "rooms/backend/hierarchy/test_joint_rename.py::test_no_commit_has_more_than_some_of_the_access_lists",
        "rooms/backend/hierarchy/test_joint_rename.py::test_a_kill_between_two_commits_of_a_rename_is_gone_on_from",
        "rooms/backend/hierarchy/test_delayed_delete.py::test_a_large_hierarchy_is_renamed_some_at_a_time",
    ),
    "changes that last longer than anybody waits": (
        "rooms/backend/test_lasting.py::test_a_command_that_lasts_says_so_until_it_is_done",
        "rooms/backend/test_lasting.py::test_a_client_of_a_frontend_hears_it_too",
        "faults/test_hostile_backend.py::test_a_change_that_was_begun_is_not_said_to_have_failed",
    ),
    "commits that touch all of a long list": (
        "rooms/mupdate/database/test_mboxlist.py::test_who_writes_looks_as_often_as_it_touches_many_pages",
        "rooms/mupdate/database/test_mboxlist.py::test_who_writes_long_rows_lets_go_of_those_that_were_read",
    ),
    "much that one call of C would put in order, look up or free": (
        "rooms/backend/mail/test_freed.py::test_what_a_command_has_made_is_freed_a_piece_at_a_time",
        "rooms/model/test_pieces.py::test_a_list_is_let_go_of_a_piece_at_a_time",
        "rooms/model/test_pieces.py::test_numbers_become_text_a_piece_at_a_time",
        "rooms/model/test_pieces.py::test_threads_are_let_go_of_one_after_the_other_and_leave_nothing",
    ),
    "an operator's page of a list of millions": (
        "rooms/web/test_walks.py::test_of_a_long_list_no_more_is_fetched_than_tells_that_it_is_long",
        "rooms/web/test_walks.py::test_a_page_that_finds_little_goes_over_so_many_rows_and_says_where_to_go_on",
    ),
    "megabytes of addresses": (
        "rooms/mime/test_bounds.py::test_of_two_megabytes_of_addresses_the_first_are_told",
    ),
    "long commands: SEARCH, FETCH, LIST, UIDL, BODYSTRUCTURE": (
        "rooms/backend/test_limits.py::test_keys_of_a_search_and_wildcards_of_a_pattern",
        "rooms/backend/mail/test_criteria.py::test_a_large_message_is_searched_in_fair_turns",
        "rooms/backend/test_fair_turns.py::test_a_command_of_many_messages_or_parts_rests",
        "rooms/backend/test_fair_turns.py::test_a_large_maildrop_is_read_and_told_a_batch_at_a_time",
        "rooms/mime/test_bounds.py::test_a_message_is_decoded_once_for_all_texts_that_are_looked_for",
        "rooms/model/test_listmatch.py::test_no_pattern_is_slow",
        "rooms/wire/imap/test_fetch.py::test_deep_parts_and_many_items_are_bounded",
    ),
    "hundreds of wrong passwords at once": (
        "rooms/auth/test_turnstile.py::test_one_address_with_many_attempts_delays_another_by_one_turn",
        "rooms/auth/test_chain.py::test_who_hashes_shares_the_processors_with_the_other_workers",
        "rooms/auth/test_gate.py::"
        "test_hundreds_of_wrong_passwords_are_answered_one_in_each_turn_of_the_loop",
        "rooms/auth/test_penalty.py::"
        "test_hundreds_whose_patience_ends_at_once_are_refused_one_in_each_turn_of_the_loop",
    ),
    "literals before the login": (
        "rooms/net/test_fair_turns.py::test_little_is_held_for_somebody_unknown",
        "rooms/serve/test_before_login.py::test_literals_of_one_command_are_bounded_together",
        "rooms/net/test_doorway.py::test_of_strangers_an_address_has_fewer",
    ),
    "certificates of an authority that was taken out, or taken back": (
        "rooms/net/test_tls.py::test_a_revoked_caller_and_a_revoked_server_are_refused",
        "rooms/node/test_workers.py::test_a_reload_ends_whom_it_believes_no_longer",
    ),
    "XTAKE with a stolen key": (
        "rooms/backend/moves/test_xtake.py::test_no_file_is_written_beside_the_journal",
        "rooms/backend/moves/test_xtake.py::test_only_what_the_master_says_is_at_the_source_may_come",
    ),
    "what rests under DELETED": (
        "rooms/backend/hierarchy/test_delayed_delete.py::test_what_rests_is_an_administrators_only",
    ),
    "literals that frontend and backend read differently": (
        "rooms/wire/test_literal.py::test_a_size_has_one_spelling_for_all_who_read_it",
        "rooms/wire/test_literal.py::test_a_frontend_passes_on_commands_that_end_where_it_saw_them_end",
    ),
    "SCRAM that tells who exists": (
        "rooms/auth/test_gate.py::test_scram_goes_on_with_somebody_who_is_not_known",
        "rooms/auth/test_gate.py::test_an_exchange_that_is_given_up_counts_as_a_wrong_password",
    ),
    "commands that tell of mailboxes without rights": (
        "rooms/frontend/names/test_not_yours.py::test_what_is_not_yours_is_not_there",
    ),
    "guesses from sixty connections, pardoned by a right login": (
        "rooms/auth/test_penalty.py::test_sixty_connections_at_once_guess_no_faster_than_one",
        "rooms/auth/test_penalty.py::test_a_right_password_of_ones_own_pardons_nobody_else",
    ),
    "names and log lines with control characters": (
        "rooms/model/test_name.py::test_no_new_name_has_characters_that_are_not_shown",
        "rooms/auth/test_gate.py::test_names_in_a_log_are_short_and_plain",
    ),
    "literals within literals; operators' requests by strangers": (
        "rooms/session/test_imap_server.py::test_literals_that_are_collected_unasked_do_not_nest",
        "rooms/wire/test_fragment.py::test_a_turn_cuts_so_many_literals_and_goes_on_in_the_next",
        "rooms/node/test_control.py::test_a_stranger_gets_nothing_done",
    ),
    "a worker that is stuck": (
        "rooms/node/test_workers.py::test_a_worker_that_is_killed_has_said_where_it_was",
    ),
    "XFER from a malicious Cyrus": (
        "rooms/backend/moves/test_xfer_from_cyrus.py::test_what_is_wrong_is_refused",
        "rooms/wire/test_dlist.py::test_what_is_no_list_is_refused",
    ),
    "a malicious backend behind a frontend": (
        "faults/test_hostile_backend.py::test_what_never_ends_is_read_no_faster_than_the_client_reads",
        "faults/test_hostile_backend.py::test_an_answer_to_what_nobody_asked_ends_the_connection_and_never_reaches_the_client",
        "rooms/frontend/entering/test_multiplexor.py::test_what_nobody_reads_is_not_read_at_the_other_end",
        "faults/test_hostile_backend.py::test_what_a_url_names_is_not_collected",
        "rooms/session/test_imap_client.py::test_lines_that_are_worth_a_look_are_looked_at_a_turn_at_a_time_and_once",
    ),
    "an import from a malicious server": (
        "rooms/cli/test_import_sources.py::test_an_answer_without_end_is_broken_off",
        "rooms/cli/test_import_sources.py::test_no_folder_leads_to_another_users",
    ),
    "NOTIFY and CONTEXT floods": (
        "rooms/backend/mail/test_notify.py::test_too_much_to_tell_ends_it",
        "rooms/backend/mail/test_notify.py::test_however_many_groups_name_a_subtree_the_list_is_read_once",
        "rooms/backend/mail/test_updates.py::test_the_flags_of_many_messages_are_told_a_part_at_a_time",
    ),
    "Maildirs with links, pipes and thousands of names": (
        "plugins/test_store_maildir.py::test_a_hostile_tree_shows_nothing_of_others_and_holds_nobody_up",
        "plugins/test_store_maildir.py::test_a_uid_list_is_read_line_by_line_and_wild_numbers_are_none",
    ),
    "races at the folder of unpacked files": (
        "test_build.py::test_first_starts_at_once_all_work",
        "test_build.py::test_a_cache_whose_place_others_could_take_is_refused",
    ),
    "the bus of workers": (
        "rooms/backend/test_bus.py::test_a_worker_that_is_busy_for_long_hears_that_everything_has_changed",
        "rooms/backend/test_bus.py::test_sockets_are_not_put_where_others_could_put_theirs",
    ),
    "THREAD and SORT that blow up": (
        "rooms/mime/test_bounds.py::test_threading_is_linear",
        "rooms/mime/test_bounds.py::test_references_that_are_kept_are_bounded",
        "rooms/mime/test_sort.py::test_a_subject_of_prefixes_only_takes_no_time",
    ),
    "hundreds of nodes at a master, long access lists": (
        "rooms/mupdate/serving/test_bounds.py::test_rows_are_kept_once_while_a_peer_does_not_read",
        "rooms/mupdate/serving/test_bounds.py::test_a_subscriber_is_written_a_few_long_rows_at_a_time",
        "rooms/mupdate/serving/test_limits.py::test_a_subscriber_that_does_not_read_is_dropped_and_the_others_never_notice",
    ),
    "half-lines and literals that drip in, from nodes and operators, too": (
        "rooms/wire/test_fragment.py::test_what_drips_in_takes_little_more_than_its_octets",
        "rooms/mupdate/serving/test_nodes_by_certificate.py::test_a_certificate_has_so_many_connections_and_others_their_own",
    ),
    "a master's journal that fills, on a disk that is full": (
        "rooms/mupdate/database/test_journal.py::test_the_journal_stays_within_its_bound_and_large_changes_pass_it_by",
        "rooms/mupdate/database/test_journal.py::test_a_disk_that_takes_no_more_keeps_what_was_acknowledged_in_the_journal",
    ),
    "an etcd in wrong hands": (
        "plugins/test_list_etcd_hostile.py::test_a_message_without_end_is_not_read",
        "plugins/test_list_etcd_hostile.py::test_pings_without_end_end_the_connection",
        "plugins/test_list_etcd.py::test_of_rows_that_become_long_fewer_are_asked_for",
    ),
    "directories and providers in wrong hands": (
        "plugins/auth/test_hostile_directories.py::test_a_directory_that_never_ends_is_left",
        "plugins/auth/test_hostile_directories.py::test_a_provider_that_answers_so_lets_nobody_in",
        "plugins/auth/test_hostile_directories.py::test_the_first_login_loads_no_library",
    ),
    "a collector of spans that takes nothing, or never ends": (
        "rooms/node/test_slow_collector.py::test_what_a_collector_does_not_take_does_not_wait_for_it",
        "rooms/node/test_slow_collector.py::test_an_answer_without_end_is_broken_off",
    ),
    "programs of filters that take their time": (
        "rooms/backend/delivery/test_site_scripts.py::test_one_users_programs_leave_another_his_turn",
        "rooms/backend/delivery/test_hostile_programs.py::test_a_program_need_not_read_what_it_is_given",
        "rooms/backend/delivery/test_hostile_programs.py::test_who_says_too_much_is_no_longer_listened_to",
        "rooms/backend/delivery/test_hostile_programs.py::test_what_a_program_leaves_behind_holds_none_of_our_pipes",
        "rooms/backend/delivery/test_hostile_programs.py::test_what_many_programs_say_is_no_memory_of_ours",
        "rooms/backend/delivery/test_hostile_programs.py::test_scripts_that_have_said_something_are_few_at_a_time",
    ),
    "the page for operators, and metrics": (
        "rooms/node/test_http_turns.py::test_of_many_requests_that_come_at_once_one_is_looked_at_in_each_turn",
        "rooms/node/test_http_turns.py::test_a_head_of_thousands_of_lines_is_not_read",
        "rooms/node/test_metrics.py::test_what_is_no_request_is_told_and_ends_the_connection",
        "rooms/node/test_metrics.py::test_who_sends_on_without_reading_answers_is_cut_off",
        "rooms/web/test_attacks.py::test_from_one_address_strangers_have_only_so_many_connections",
    ),
    "POP3: TOP of millions of lines or of a header without an end, STAT of many messages": (
        "rooms/backend/test_fair_turns.py::test_top_looks_at_a_message_a_piece_at_a_time",
        "rooms/backend/test_fair_turns.py::test_a_large_maildrop_is_read_and_told_a_batch_at_a_time",
    ),
    "LMTP: megabytes of line ends, or of dots, that come at once": (
        "rooms/session/test_lines.py::test_a_text_that_has_come_at_once_is_given_out_in_pieces",
        "rooms/wire/test_dots.py::test_each_bare_lf_has_its_cr_and_nothing_else_changes",
    ),
    "LMTP: thousands of recipients, taken or refused": (
        "rooms/frontend/test_lmtp.py::test_hundreds_of_recipients_are_answered_some_at_a_time",
        "rooms/frontend/test_lmtp.py::test_replies_to_pipelined_recipients_are_not_collected_without_end",
        "rooms/frontend/test_lmtp.py::test_recipients_that_are_refused_are_no_more_than_some_in_a_transaction",
        "rooms/backend/test_fair_turns.py::test_a_message_that_finds_no_room_is_refused_to_some_at_a_time",
    ),
    "names of servers that nobody answers for": (
        "rooms/net/outgoing/test_resolve.py::test_names_that_nobody_answers_keep_no_other_from_being_found",
        "rooms/net/outgoing/test_resolve.py::test_a_name_is_looked_up_once_for_all_who_wait_for_it",
        "rooms/net/outgoing/test_resolve.py::test_a_name_that_nobody_answers_for_now_is_where_it_was_last",
    ),
    "numbers of thousands of digits": (
        "rooms/wire/test_foreign_octets.py::test_of_thousands_of_digits_nobody_makes_a_number",
        "rooms/backend/delivery/test_managesieve.py::test_a_size_of_thousands_of_digits_is_no_number",
    ),
    "ManageSieve before the login, scripts that are too long": (
        "rooms/backend/delivery/test_managesieve.py::test_who_has_not_logged_in_gets_the_memory_of_one_login",
        "rooms/backend/delivery/test_managesieve.py::test_a_script_that_is_too_big_costs_nothing_and_the_session_goes_on",
    ),
    "large mails and the scripts that see them": (
        "rooms/sieve/test_large_messages.py::test_dozens_of_versions_have_one_body",
        "rooms/sieve/test_large_messages.py::test_a_message_without_an_end_of_its_header_is_looked_through_in_steps",
        "rooms/sieve/test_large_messages.py::test_an_edit_for_each_part_moves_them_all_at_once",
        "rooms/sieve/test_large_messages.py::test_large_messages_are_put_together_anew_a_few_times",
        "rooms/backend/delivery/test_submission.py::test_a_large_mail_is_put_down_and_read_as_it_is_and_few_at_a_time",
        "rooms/backend/delivery/test_submission.py::test_what_deliveries_have_put_on_top_is_taken_off_at_once",
        "rooms/backend/delivery/test_imap_scripts.py::test_one_users_rows_take_nobodys_room",
    ),
    "large mails that many read slowly: decoded, without NUL, by URL": (
        "rooms/backend/mail/test_made.py::test_octets_are_what_was_written",
        "rooms/backend/mail/test_made.py::test_a_message_with_nul_is_told_a_piece_at_a_time",
        "rooms/wire/imap/test_extensions.py::test_what_stands_around_octets_that_are_sent_in_pieces",
    ),
    "headers of a million fields, or without an end": (
        "rooms/mime/test_section_bounds.py::test_a_million_fields_are_no_million_objects",
        "rooms/mime/test_section_bounds.py::test_a_message_without_a_blank_line_is_looked_through_piece_by_piece",
        "rooms/mime/test_structure.py::test_what_is_searched_a_window_at_a_time_is_found_wherever_it_stands",
    ),
    "a thousand keywords on a message": (
        "rooms/backend/test_fair_turns.py::test_a_session_keeps_no_long_forms_of_flags",
        "rooms/backend/test_limits.py::test_keywords_of_a_message",
        "rooms/backend/mail/test_fetch_cost.py::"
        "test_flags_of_messages_with_many_keywords_are_told_a_part_at_a_time",
    ),
    "the flags of a mailbox that hundreds have selected turned": (
        "rooms/backend/mail/test_updates.py::test_few_sessions_look_at_a_large_mailbox_at_a_time",
        "rooms/backend/mail/test_updates.py::test_what_has_changed_again_before_it_is_told_is_told_once_as_it_is_then",
    ),
    "thousands of application passwords": (
        "rooms/auth/test_app_passwords.py::test_thousands_are_read_in_turns_and_once_for_all_who_wait",
    ),
    "hundreds who ask for figures at once": (
        "rooms/node/test_metrics.py::test_however_many_ask_at_once_two_questions_are_asked",
    ),
}


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize("what", WATCHED)
def test_what_was_tried_is_watched(what: str) -> None:
    for one in WATCHED[what]:
        file, _, name = one.partition("::")
        assert name in names_in(file), one
