//! V: values.

use kvstore_core::{ErrorKind, QueueOptions};

use crate::Fixture;
use crate::support::{controlled, key, keys};

/// V1 An empty value is a value: present, zero bytes.
pub fn v1_an_empty_value_is_a_value<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.put_blocking(&key("empty"), Vec::new()).unwrap();
    assert_eq!(store.get_blocking(&key("empty")).unwrap(), Some(Vec::new()));
    assert_eq!(keys(&store, "p", "s"), ["empty"]);
    drop(store);
    let store = store_at.store();
    assert_eq!(store.get_blocking(&key("empty")).unwrap(), Some(Vec::new()));
    assert_eq!(store.list_all_blocking().unwrap()[0].value_len, 0);
}

/// V2 Every byte value survives.
pub fn v2_every_byte_survives<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    store.put_blocking(&key("all"), bytes.clone()).unwrap();
    for byte in 0..=255_u8 {
        let ticket = store.put(&key(byte), vec![byte]);
        drop(ticket);
    }
    store.batch().commit().wait().unwrap();
    drop(store);
    let store = store_at.store();
    assert_eq!(store.get_blocking(&key("all")).unwrap(), Some(bytes));
    for byte in 0..=255_u8 {
        assert_eq!(store.get_blocking(&key(byte)).unwrap(), Some(vec![byte]));
    }
}

/// V3 64 MiB values round-trip.
pub fn v3_values_of_64_mib_round_trip<F: Fixture>() {
    const LEN: usize = 64 << 20;
    let store_at = F::new();
    let store = store_at.store();
    let large: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    store.put_blocking(&key("large"), large.clone()).unwrap();
    store.put_blocking(&key("small"), vec![1]).unwrap();
    drop(store);
    let store = store_at.store();
    assert!(store.get_blocking(&key("large")).unwrap() == Some(large), "the value changed");
    assert_eq!(store.get_blocking(&key("small")).unwrap(), Some(vec![1]));
    let listed = store.list_all_blocking().unwrap();
    let lens: Vec<_> = listed.iter().map(|entry| (entry.id.key(), entry.value_len)).collect();
    assert!(lens.contains(&("large", LEN as u64)), "{lens:?}");
}

/// V4 A value too large for the engine is a clear error for its own batch only, and harms no other,
/// although they were committed as one group.
pub fn v4_a_value_too_large_harms_only_its_batch<F: Fixture>() {
    let store_at = F::new();
    let options = QueueOptions::default().max_held_bytes(usize::MAX).max_group_bytes(usize::MAX);
    let (control, store) = controlled(&store_at, options);
    control.hold();
    let first = store.put(&key("first"), vec![0]);
    control.wait_until_held();
    let before = store.put(&key("before"), vec![1]);
    // Zeroed memory that nobody writes to takes no room.
    let too_large = vec![0; store_at.too_large()];
    let guilty = store.batch().put(&key("with"), vec![2]).put(&key("guilty"), too_large).commit();
    let after = store.put(&key("after"), vec![3]);
    control.release();
    for innocent in [first, before, after] {
        innocent.wait().unwrap();
    }
    let error = guilty.wait().expect_err("a value of too_large() bytes is refused");
    assert_eq!(error.kind(), ErrorKind::ValueTooLarge, "{error}");
    assert_eq!(keys(&store, "p", "s"), ["after", "before", "first"]);
    store.put_blocking(&key("with"), vec![4]).unwrap();
}
