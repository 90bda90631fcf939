//! The library as programs meet it: loaded by an unchanged nvml-wrapper, while a scenario changes under it.

mod devices;
mod faults;
mod processes;
mod stage;
