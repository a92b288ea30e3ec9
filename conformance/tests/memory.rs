//! The reference backend keeps every law, also through LDK's traits.

conformance::suite!(conformance::MemoryFixture);

#[cfg(feature = "ldk-0-2")]
mod ldk_0_2 {
    conformance::ldk_0_2_suite!(conformance::MemoryFixture);
}

#[cfg(feature = "ldk-0-3")]
mod ldk_0_3 {
    conformance::ldk_0_3_suite!(conformance::MemoryFixture);
}
