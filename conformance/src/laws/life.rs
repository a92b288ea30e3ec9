//! G: over a life.

use kvstore_core::QueueOptions;

use crate::Fixture;
use crate::support::{controlled, key, namespace, within_patience};

/// G3 No operation holds up commits or reads; here a page with values, as far as the store goes:
/// while the backend reads it, others commit and read.
pub fn g3_a_page_holds_up_nothing<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    for at in 0..10_u8 {
        store.put_blocking(&key(at), vec![at; 1000]).unwrap();
    }
    control.hold_pages();
    let reader = store.clone();
    let page = std::thread::spawn(move || {
        reader.page_with_values_blocking(&namespace("p", "s"), None, 10)
    });
    control.wait_until_page_held();
    let writer = store.clone();
    within_patience("a commit during a page", move || {
        writer.put_blocking(&key(0), vec![100]).unwrap();
        assert_eq!(writer.get_blocking(&key(0)).unwrap(), Some(vec![100]));
        writer.remove_lazy(&key(1)).unwrap();
        assert_eq!(writer.get_blocking(&key(1)).unwrap(), None);
    });
    control.release_pages();
    assert!(page.join().unwrap().unwrap().entries.len() >= 9);
}
