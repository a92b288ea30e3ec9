//! N: names.

use kvstore_core::{EntryId, ErrorKind, NAME_ALPHABET, NAME_MAX_LEN, Namespace};

use crate::Fixture;
use crate::support::{id, keys, namespace, sorted};

/// N1 Names use `A-Z a-z 0-9 _ -`, at most 120 of them.
pub fn n1_names_use_the_alphabet_of_ldk<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let letters: Vec<String> = NAME_ALPHABET.chars().map(String::from).collect();
    for letter in &letters {
        store.put_blocking(&id(letter, letter, letter), letter.clone()).unwrap();
    }
    for letter in &letters {
        let found = store.get_blocking(&id(letter, letter, letter)).unwrap();
        assert_eq!(found.as_deref(), Some(letter.as_bytes()));
        assert_eq!(keys(&store, letter, letter), [letter.as_str()]);
    }
}

/// N2 Both namespace names may be empty.
pub fn n2_both_namespace_names_may_be_empty<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    store.put_blocking(&id("", "", "k"), vec![1]).unwrap();
    store.put_blocking(&id("p", "", "k"), vec![2]).unwrap();
    store.put_blocking(&id("p", "s", "k"), vec![3]).unwrap();
    for (names, value) in [(("", ""), 1), (("p", ""), 2), (("p", "s"), 3)] {
        let found = store.get_blocking(&id(names.0, names.1, "k")).unwrap();
        assert_eq!(found, Some(vec![value]));
        assert_eq!(keys(&store, names.0, names.1), ["k"]);
    }
}

/// N3 An empty primary with a non-empty secondary is invalid. N4 An empty key is invalid. N9 A bad
/// name is an `InvalidInput` error, never a panic.
///
/// Names are parsed before a store sees them, so a bad one cannot queue anything.
pub fn n3_n4_n9_bad_names_are_refused_and_change_nothing<F: Fixture>() {
    let long = "x".repeat(NAME_MAX_LEN + 1);
    let bad = ["a/b", "..", ".", "a b", "ä", "\0", "a\n", "a.tmp", "%", "'", long.as_str()];
    let mut refused = vec![EntryId::new("", "s", "k"), EntryId::new("p", "s", "")];
    for name in bad {
        refused.extend([
            EntryId::new(name, "s", "k"),
            EntryId::new("p", name, "k"),
            EntryId::new("p", "s", name),
        ]);
        assert_eq!(Namespace::new(name, "").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let store_at = F::new();
    assert_eq!(store_at.store().list_all_blocking().unwrap(), []);
}

/// N5 120-character names at all three levels round-trip.
pub fn n5_names_of_120_characters_round_trip<F: Fixture>() {
    let store_at = F::new();
    let (long, other) = ("A".repeat(NAME_MAX_LEN), "A".repeat(NAME_MAX_LEN - 1) + "B");
    let store = store_at.store();
    store.put_blocking(&id(&long, &long, &long), vec![1]).unwrap();
    store.put_blocking(&id(&long, &long, &other), vec![2]).unwrap();
    drop(store);
    let store = store_at.store();
    assert_eq!(store.get_blocking(&id(&long, &long, &long)).unwrap(), Some(vec![1]));
    assert_eq!(store.get_blocking(&id(&long, &long, &other)).unwrap(), Some(vec![2]));
    assert_eq!(keys(&store, &long, &long), [other, long.clone()]);
    store.remove_blocking(&id(&long, &long, &long)).unwrap();
    assert_eq!(store.get_blocking(&id(&long, &long, &long)).unwrap(), None);
}

/// N6 The same text may be a key and a namespace at the same level (`p/x` and `p/x/k`).
pub fn n6_a_key_and_a_namespace_may_share_their_text<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let same = [id("", "", "p"), id("p", "", "x"), id("p", "x", "k"), id("p", "x", "x")];
    if !store_at.keys_may_be_namespaces() {
        return refuses_shared_text::<F>();
    }
    for (value, entry) in same.iter().enumerate() {
        store.put_blocking(entry, vec![value as u8]).unwrap();
    }
    drop(store);
    let store = store_at.store();
    for (value, entry) in same.iter().enumerate() {
        assert_eq!(store.get_blocking(entry).unwrap(), Some(vec![value as u8]), "{entry}");
    }
    assert_eq!(keys(&store, "p", ""), ["x"]);
    assert_eq!(sorted(keys(&store, "p", "x")), ["k", "x"]);
}

/// What N6 allows the first directory layout instead: a clear error, and nothing is changed.
fn refuses_shared_text<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for (entry, others) in [
        (id("a", "", "x"), [id("", "", "a"), id("a", "x", "k")]),
        (id("b", "x", "k"), [id("", "", "b"), id("b", "", "x")]),
    ] {
        store.put_blocking(&entry, vec![1]).unwrap();
        for other in others {
            let batch = store.batch().put(&other, vec![2]).put(&id("c", "", "c"), vec![2]);
            let error = batch.commit_blocking().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.message().contains("in the way"), "{error}");
            assert_eq!(store.get_blocking(&other).unwrap(), None);
        }
        assert_eq!(store.list_all_blocking().unwrap().len(), 1);
        // Within one batch too, and in any order, what counts is how it ends.
        let other = id(entry.primary(), entry.key(), "k");
        let both = store.batch().put(&other, vec![3]).remove(&entry);
        match entry.secondary() {
            "" => both.commit_blocking().unwrap(),
            _ => store.batch().remove(&entry).commit_blocking().unwrap(),
        }
        store.remove_blocking(&other).unwrap();
        store.put_blocking(&entry, vec![4]).unwrap();
        drop(store_at.open().err().expect("the store is still open"));
        store.remove_blocking(&entry).unwrap();
    }
    assert_eq!(store.list_all_blocking().unwrap(), []);
}

/// N7 `A` and `a` are different names.
pub fn n7_case_matters<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let names = [("A", "a"), ("a", "A"), ("a", "a"), ("A", "A")];
    for (value, (primary, key)) in names.iter().enumerate() {
        store.put_blocking(&id(primary, "", key), vec![value as u8]).unwrap();
    }
    for (value, (primary, key)) in names.iter().enumerate() {
        let found = store.get_blocking(&id(primary, "", key)).unwrap();
        assert_eq!(found, Some(vec![value as u8]));
    }
    assert_eq!(sorted(keys(&store, "a", "")), ["A", "a"]);
    store.remove_blocking(&id("a", "", "A")).unwrap();
    assert_eq!(keys(&store, "a", ""), ["a"]);
}

/// N8 No name is a prefix match for another: listing `sub` never shows what is in `sub2`, nor `a_b`
/// what is in `aXb`.
pub fn n8_no_name_is_a_prefix_match<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let names = ["sub", "sub2", "su", "a_b", "aXb", "a-b", "a", "_", "X"];
    for name in names {
        store.put_blocking(&id(name, "", &format!("in_{name}")), vec![1]).unwrap();
        store.put_blocking(&id("p", name, &format!("in_{name}")), vec![2]).unwrap();
    }
    for name in names {
        assert_eq!(keys(&store, name, ""), [format!("in_{name}")]);
        assert_eq!(keys(&store, "p", name), [format!("in_{name}")]);
        let page = store.page_blocking(&namespace("p", name), None, 10).unwrap();
        assert_eq!((page.entries.len(), page.next), (1, None));
    }
    store.remove_blocking(&id("a_b", "", "in_a_b")).unwrap();
    assert_eq!(keys(&store, "aXb", ""), ["in_aXb"]);
}
