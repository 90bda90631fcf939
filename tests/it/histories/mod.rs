//! Histories of real programs: clients that write down what they ask and hear, faults meanwhile, and the simulator's own
//! checker over all of it and the journal.

mod disk;
mod kills;
mod limits;
mod load;
mod recorder;
mod world;
