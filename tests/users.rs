//! The users of `examples/users`, run as tests so that what they say stays true.

use core::error::Error;

#[path = "../examples/users/c_tokens.rs"]
mod c_tokens;
#[path = "../examples/users/dma_buf.rs"]
mod dma_buf;
#[path = "../examples/users/driver_scrub.rs"]
mod driver_scrub;
#[path = "../examples/users/fs_on_driver.rs"]
mod fs_on_driver;
#[path = "../examples/users/give_back.rs"]
mod give_back;
#[path = "../examples/users/hypervisor.rs"]
mod hypervisor;
#[path = "../examples/users/live_update.rs"]
mod live_update;
#[path = "../examples/users/page_table.rs"]
mod page_table;
#[path = "../examples/users/two_owners.rs"]
mod two_owners;
#[path = "../examples/users/unikernel.rs"]
mod unikernel;
#[path = "../examples/users/vfio.rs"]
mod vfio;

#[test]
fn a_unikernel_needs_nothing_but_statics() -> Result<(), Box<dyn Error>> {
    unikernel::main()
}

#[test]
fn a_guest_is_a_set_that_can_be_shared_and_partly_returned() -> Result<(), Box<dyn Error>> {
    hypervisor::main()
}

#[test]
fn a_driver_scrubs_behind_its_hook() -> Result<(), Box<dyn Error>> {
    driver_scrub::main()
}

#[test]
fn two_owners_share_one_directory() -> Result<(), Box<dyn Error>> {
    two_owners::main()
}

#[test]
fn dma_outlives_every_other_holder() -> Result<(), Box<dyn Error>> {
    vfio::main()
}

#[test]
fn importers_stop_before_the_device_is_reset() -> Result<(), Box<dyn Error>> {
    dma_buf::main()
}

#[test]
fn a_file_system_comes_on_top_of_a_driver() -> Result<(), Box<dyn Error>> {
    fs_on_driver::main()
}

#[test]
fn a_hypervisor_replaces_itself_under_its_guests() -> Result<(), Box<dyn Error>> {
    live_update::main()
}

#[test]
fn a_hypervisor_gives_a_gigabyte_back_under_its_guests() -> Result<(), Box<dyn Error>> {
    give_back::main()
}

#[test]
fn a_page_table_takes_sixty_lines() -> Result<(), Box<dyn Error>> {
    page_table::main()
}

#[test]
fn tokens_are_all_that_c_needs() -> Result<(), Box<dyn Error>> {
    c_tokens::main()
}
