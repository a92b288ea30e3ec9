//! Hands over to the nodes of the chosen release.

use crate::arguments::Release;
use crate::failure::Result;
use crate::place::Place;
use crate::remains::Remains;

impl Release {
    /// Two nodes that pay each other until the process is killed.
    pub(crate) fn live(self, place: &Place, seed: u64) -> Result<()> {
        match self {
            #[cfg(feature = "ldk-0-2")]
            Self::V0_2 => crate::ldk_0_2::flow::live(place, seed),
            #[cfg(feature = "ldk-0-3")]
            Self::V0_3 => crate::ldk_0_3::flow::live(place, seed),
        }
    }

    /// Recovery, the controls and the penalty, told line by line.
    pub(crate) fn recover(self, place: &Place, seed: u64, remains: &Remains) -> Result<()> {
        match self {
            #[cfg(feature = "ldk-0-2")]
            Self::V0_2 => crate::ldk_0_2::flow::recover(place, seed, remains),
            #[cfg(feature = "ldk-0-3")]
            Self::V0_3 => crate::ldk_0_3::flow::recover(place, seed, remains),
        }
    }
}
