//! The shared folder's device of a machine that is checkpointed.
//!
//! QEMU cannot save a machine that has a virtio-fs device. So the host takes it away without the kernel's knowledge, and puts another one in its place before
//! anything goes on: in the same machine, or in one that goes on from the checkpoint. The kernel's driver, and every file that is open, still rely on the
//! first one; what the driver has told that one is told the second one here. Its server knows by itself which files are open.

use std::path::PathBuf;

use super::driver_state::{self, CommonRegisters, DriverState};
use super::interrupts::Interrupts;
use super::pci::{
    COMMON, Configuration, Header, NOTIFICATION_MULTIPLIER, NOTIFICATIONS, Structure, Window,
};
use super::{VIRTIOFS, bound_devices, function_of};
use crate::error::{Failure, Result};

/// A device that the host may exchange.
pub struct HeldDevice {
    function: PathBuf,
    header: Header,
    interrupts: Interrupts,
    driver: DriverState,
}

impl HeldDevice {
    /// Notes how the kernel works with the shared folder's device. Answers nothing where no folder is shared.
    pub fn note() -> Result<Option<Self>> {
        let device = match &bound_devices(VIRTIOFS)?[..] {
            [] => return Ok(None),
            [only] => only.clone(),
            several => {
                let count = several.len();
                return Err(Failure::other(format!("{count} folders are shared")));
            }
        };
        let function = function_of(&device)?;
        let configuration = Configuration::open(&function)?;
        Ok(Some(HeldDevice {
            interrupts: Interrupts::save(&function, &configuration)?,
            driver: DriverState::save(&Registers::open(&Window::open(&configuration)?)?)?,
            header: configuration.header()?,
            function,
        }))
    }

    /// Takes the device in its place into use, where that is a new one. Fails where none is there.
    pub fn take_up(&self) -> Result<()> {
        let configuration = Configuration::open(&self.function)?;
        let window = Window::open(&configuration)?;
        let registers = Registers::open(&window)?;
        if !driver_state::is_unused(&registers)? {
            return Ok(());
        }
        configuration.restore_header(&self.header)?;
        self.interrupts.restore(&self.function, &configuration)?;
        self.driver.restore(&registers)?;
        // Nobody else tells it of what is in its queues already.
        let notifications = window.find(NOTIFICATIONS)?;
        let multiplier =
            configuration.read(notifications.capability + NOTIFICATION_MULTIPLIER, 4)?;
        for (queue, steps) in (0..).zip(driver_state::notify_offsets(&registers)?) {
            window.write(notifications, steps * multiplier, 2, queue)?;
        }
        Ok(())
    }
}

struct Registers<'a> {
    window: &'a Window<'a>,
    common: Structure,
}

impl<'a> Registers<'a> {
    fn open(window: &'a Window<'a>) -> Result<Self> {
        Ok(Registers {
            window,
            common: window.find(COMMON)?,
        })
    }
}

impl CommonRegisters for Registers<'_> {
    fn read(&self, at: u32, size: usize) -> Result<u32> {
        self.window.read(self.common, at, size)
    }

    fn write(&self, at: u32, size: usize, value: u32) -> Result<()> {
        self.window.write(self.common, at, size, value)
    }
}
