//! What is x86-64, PCI and QEMU, and knows nothing of folios.

pub mod acpi;
pub mod boot;
pub mod clock;
pub mod cpus;
pub mod edu;
pub mod frames;
pub mod memory;
pub mod pci;
pub mod serial;
pub mod start;
pub mod traps;
