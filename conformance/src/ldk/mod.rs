//! The contract seen through LDK's traits, one module per release of `lightning`.

mod common;

/// Through the traits of `lightning` 0.2.
#[cfg(feature = "ldk-0-2")]
pub mod v0_2 {
    use lightning_0_2 as lightning;
    use lightning_0_2::util::persist::MigratableKVStore as MigratableSync;

    super::common::laws!();
}

/// Through the traits of `lightning` 0.3.
#[cfg(feature = "ldk-0-3")]
pub mod v0_3 {
    use lightning_0_3 as lightning;
    use lightning_0_3::util::persist::MigratableKVStoreSync as MigratableSync;

    super::common::laws!();

    mod paginated;
    pub use paginated::{
        asynchronous_migration_moves_everything_in_creation_order,
        pages_of_fifty_go_from_newest_to_oldest, tokens_are_checked,
    };
}

/// Turns the laws that hold through `lightning` 0.2's traits into tests of a
/// [`Fixture`](crate::Fixture)'s backend.
#[cfg(feature = "ldk-0-2")]
#[macro_export]
macro_rules! ldk_0_2_suite {
    ($fixture:ty) => {
        $crate::ldk_tests!(v0_2, $fixture,
            reads_writes_removes_and_lists
            absence_is_not_found_and_bad_names_are_invalid
            the_call_fixes_the_order
            dropped_futures_are_committed
            lazy_removes_hide_at_once
            a_closed_store_is_no_absence
            migration_moves_everything_in_creation_order
        );
    };
}

/// Turns the laws that hold through `lightning` 0.3's traits into tests of a
/// [`Fixture`](crate::Fixture)'s backend.
#[cfg(feature = "ldk-0-3")]
#[macro_export]
macro_rules! ldk_0_3_suite {
    ($fixture:ty) => {
        $crate::ldk_tests!(v0_3, $fixture,
            reads_writes_removes_and_lists
            absence_is_not_found_and_bad_names_are_invalid
            the_call_fixes_the_order
            dropped_futures_are_committed
            lazy_removes_hide_at_once
            a_closed_store_is_no_absence
            migration_moves_everything_in_creation_order
            asynchronous_migration_moves_everything_in_creation_order
            pages_of_fifty_go_from_newest_to_oldest
            tokens_are_checked
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! ldk_tests {
    ($release:ident, $fixture:ty, $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                if <$fixture as $crate::Fixture>::is_available() {
                    $crate::ldk::$release::$law::<$fixture>();
                }
            }
        )*
    };
}
