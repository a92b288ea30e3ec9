//! The reference backend keeps every law.

conformance::suite!(conformance::MemoryFixture);
