//! The laws, grouped by theme: each a function that panics if a backend breaks it.
//!
//! Names begin with the number of the law in the contract, which stands in the crate's README.

pub mod batches;
pub mod durability;
pub mod life;
pub mod listing;
pub mod names;
pub mod order;
pub mod owner;
pub mod random;
pub mod reading;
pub mod removing;
pub mod safety;
pub mod values;

/// Calls a macro with the list of all laws: `theme { law law … } …`.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_law {
    ($callback:path, $($arguments:tt)*) => {
        $callback! { $($arguments)*
            names {
                n1_names_use_the_alphabet_of_ldk
                n2_both_namespace_names_may_be_empty
                n3_n4_n9_bad_names_are_refused_and_change_nothing
                n5_names_of_120_characters_round_trip
                n6_a_key_and_a_namespace_may_share_their_text
                n7_case_matters
                n8_no_name_is_a_prefix_match
            }
            values {
                v1_an_empty_value_is_a_value
                v2_every_byte_survives
                v3_values_of_64_mib_round_trip
                v4_a_value_too_large_harms_only_its_batch
            }
            order {
                o1_the_call_fixes_the_order
                o2_an_earlier_value_never_comes_back
                o3_dropped_tickets_are_committed
                o4_a_superseded_put_waits_for_what_supersedes_it
                o5_what_survives_is_a_prefix
                o7_any_thread_and_any_runtime
            }
            reading {
                r1_an_acknowledged_value_is_seen
                r2_absence_is_none_and_errors_are_errors
                r3_reads_do_not_wait_for_a_commit
                r4_reads_are_never_torn
                r4_reads_at_once_get_their_own_answers
            }
            removing {
                d1_removing_what_is_absent_is_ok
                d2_put_after_remove_wins
                d3_a_lazy_remove_hides_at_once
                d4_a_lazy_remove_reaches_the_disk_by_itself
                d4_a_lazy_remove_rides_along_and_is_settled_on_close
                d4_a_lazy_remove_that_fails_is_tried_again
            }
            listing {
                l1_a_list_shows_its_namespace_only
                l2_an_unknown_namespace_is_empty
                l3_listing_during_changes_shows_what_stays
                l4_pages_go_from_newest_to_oldest
                l5_creation_order_survives_reopening
                l6_walking_pages_shows_what_stays_exactly_once
                l7_a_token_outlives_its_entry
                l8_a_foreign_or_malformed_token_is_refused
                l9_a_page_with_values_is_one_operation
                l11_every_entry_is_listed_once
            }
            batches {
                b1_a_batch_that_fails_leaves_nothing
                b2_the_last_mutation_of_an_entry_wins
                b3_an_empty_batch_is_ok
                b4_batches_keep_their_place
            }
            durability {
                p1_everything_acknowledged_is_there_after_reopening
                p3_a_failed_batch_is_never_visible
                p3_p4_a_commit_in_doubt_stops_the_store
                p5_a_full_disk_is_an_error_and_passes
                queue_is_bounded
                close_commits_everything_and_is_final
            }
            owner {
                w1_a_second_open_is_refused
                w2_a_fenced_owner_commits_nothing
                w3_a_dropped_owner_is_forgotten
            }
            life {
                g2_superseded_values_give_their_space_back
                g3_a_page_holds_up_nothing
                g5_a_moved_store_is_whole
            }
            safety {
                s1_files_are_for_their_owner_only
                s2_nothing_shows_a_value
                s3_names_stay_in_the_directory
            }
            random {
                random_operations_agree_with_the_model
            }
        }
    };
}

/// Turns every law into a test of the backend that a [`Fixture`](crate::Fixture) opens.
///
/// ```
/// # fn main() {}
/// mod memory {
///     conformance::suite!(conformance::MemoryFixture);
/// }
/// ```
#[macro_export]
macro_rules! suite {
    ($fixture:ty) => {
        $crate::for_each_law!($crate::law_tests, $fixture;);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! law_tests {
    ($fixture:ty; $($theme:ident { $($law:ident)* })*) => {
        $($crate::law_tests!(@theme $fixture, $theme, $($law)*);)*
    };
    (@theme $fixture:ty, $theme:ident, $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                if <$fixture as $crate::Fixture>::is_available() {
                    $crate::laws::$theme::$law::<$fixture>();
                }
            }
        )*
    };
}
