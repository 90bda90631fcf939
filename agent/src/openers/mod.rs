//! Holders by open device nodes, while NVML cannot be asked (library and driver differ, or NVML is broken): running work goes on
//! then, and its GPUs are not free.

pub mod keeper;
pub mod scan;
