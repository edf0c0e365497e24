//! What a driver has told a virtio device of how they work together, as far as the device can be asked, so that another device can be told the same in its
//! place: Virtual I/O Device 1.2, section 4.1.4.3. That much is all that a device knows of a driver, apart from how far the queues have come.

use crate::error::{Failure, Result};

/// The common configuration structure of a device.
pub trait CommonRegisters {
    fn read(&self, at: u32, size: usize) -> Result<u32>;
    fn write(&self, at: u32, size: usize, value: u32) -> Result<()>;
}

/// Its fields: where they are, and their sizes.
type Field = (u32, usize);
const DRIVER_FEATURE_SELECT: Field = (8, 4);
const DRIVER_FEATURE: Field = (12, 4);
const CONFIGURATION_VECTOR: Field = (16, 2);
const QUEUE_COUNT: Field = (18, 2);
const DEVICE_STATUS: Field = (20, 1);
const QUEUE_SELECT: Field = (22, 2);
const QUEUE_SIZE: Field = (24, 2);
const QUEUE_VECTOR: Field = (26, 2);
const QUEUE_ENABLE: Field = (28, 2);
const QUEUE_NOTIFY_OFFSET: Field = (30, 2);
/// The low halves of three addresses; the high ones follow them.
const QUEUE_ADDRESSES: [u32; 3] = [32, 40, 48];

/// The device's status (section 2.1).
const ACKNOWLEDGED: u32 = 1;
const HAS_DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// More than any device has that is looked at here.
const MOST_QUEUES: u32 = 64;

/// How a driver works with its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverState {
    features: [u32; 2],
    configuration_vector: u32,
    queues: Vec<Queue>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    size: u32,
    vector: u32,
    is_enabled: bool,
    addresses: [[u32; 2]; 3],
}

impl DriverState {
    /// Asks the device. Fails where no driver works with it.
    pub fn save(device: &impl CommonRegisters) -> Result<Self> {
        if is_unused(device)? {
            return Err(Failure::other("no driver works with the device"));
        }
        let mut features = [0; 2];
        for (half, value) in (0..).zip(&mut features) {
            write(device, DRIVER_FEATURE_SELECT, half)?;
            *value = read(device, DRIVER_FEATURE)?;
        }
        let queues = (0..queue_count(device)?).map(|queue| Queue::save(device, queue));
        Ok(DriverState {
            features,
            configuration_vector: read(device, CONFIGURATION_VECTOR)?,
            queues: queues.collect::<Result<_>>()?,
        })
    }

    /// Tells a device that nobody uses, as its driver would have done (section 3.1.1). Fails where it is another kind of device.
    pub fn restore(&self, device: &impl CommonRegisters) -> Result<()> {
        let found = queue_count(device)? as usize;
        if found != self.queues.len() {
            let expected = self.queues.len();
            return Err(Failure::other(format!(
                "the new device has {found} queues, and the old one had {expected}"
            )));
        }
        let mut status = ACKNOWLEDGED | HAS_DRIVER;
        write(device, DEVICE_STATUS, status)?;
        for (half, &value) in (0..).zip(&self.features) {
            write(device, DRIVER_FEATURE_SELECT, half)?;
            write(device, DRIVER_FEATURE, value)?;
        }
        status |= FEATURES_OK;
        write(device, DEVICE_STATUS, status)?;
        if read(device, DEVICE_STATUS)? & FEATURES_OK == 0 {
            return Err(Failure::other(
                "the new device does not have the old one's features",
            ));
        }
        write(device, CONFIGURATION_VECTOR, self.configuration_vector)?;
        for (number, queue) in (0..).zip(&self.queues) {
            queue.restore(device, number)?;
        }
        write(device, DEVICE_STATUS, status | DRIVER_OK)
    }
}

/// Whether the device is as after a reset, and waits for a driver.
pub fn is_unused(device: &impl CommonRegisters) -> Result<bool> {
    Ok(read(device, DEVICE_STATUS)? & DRIVER_OK == 0)
}

/// By how many steps its notifications are away from the first one, for each queue.
pub fn notify_offsets(device: &impl CommonRegisters) -> Result<Vec<u32>> {
    let offset = |queue| {
        write(device, QUEUE_SELECT, queue)?;
        read(device, QUEUE_NOTIFY_OFFSET)
    };
    (0..queue_count(device)?).map(offset).collect()
}

impl Queue {
    fn save(device: &impl CommonRegisters, number: u32) -> Result<Self> {
        write(device, QUEUE_SELECT, number)?;
        let mut addresses = [[0; 2]; 3];
        for (at, address) in QUEUE_ADDRESSES.into_iter().zip(&mut addresses) {
            *address = [read(device, (at, 4))?, read(device, (at + 4, 4))?];
        }
        Ok(Queue {
            size: read(device, QUEUE_SIZE)?,
            vector: read(device, QUEUE_VECTOR)?,
            is_enabled: read(device, QUEUE_ENABLE)? == 1,
            addresses,
        })
    }

    fn restore(&self, device: &impl CommonRegisters, number: u32) -> Result<()> {
        if !self.is_enabled {
            return Ok(());
        }
        write(device, QUEUE_SELECT, number)?;
        write(device, QUEUE_SIZE, self.size)?;
        write(device, QUEUE_VECTOR, self.vector)?;
        for (at, [low, high]) in QUEUE_ADDRESSES.into_iter().zip(self.addresses) {
            write(device, (at, 4), low)?;
            write(device, (at + 4, 4), high)?;
        }
        write(device, QUEUE_ENABLE, 1)
    }
}

fn queue_count(device: &impl CommonRegisters) -> Result<u32> {
    let count = read(device, QUEUE_COUNT)?;
    if count > MOST_QUEUES {
        return Err(Failure::other(format!("the device has {count} queues")));
    }
    Ok(count)
}

fn read(device: &impl CommonRegisters, (at, size): Field) -> Result<u32> {
    device.read(at, size)
}

fn write(device: &impl CommonRegisters, (at, size): Field, value: u32) -> Result<()> {
    device.write(at, size, value)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// A device with two queues, which remembers what it is told as the specification says.
    #[derive(Default)]
    struct Device {
        registers: RefCell<BTreeMap<(u32, u32), u32>>,
        lacks_features: bool,
        queues: u32,
    }

    impl Device {
        fn new() -> Self {
            Device {
                queues: 2,
                ..Device::default()
            }
        }

        /// Which of its registers is meant: some are there once for each half or queue.
        fn place(&self, at: u32) -> (u32, u32) {
            let selected = |select: Field| {
                let registers = self.registers.borrow();
                registers.get(&(select.0, 0)).copied().unwrap_or_default()
            };
            match at {
                12 => (at, selected(DRIVER_FEATURE_SELECT)),
                24..56 => (at, selected(QUEUE_SELECT)),
                _ => (at, 0),
            }
        }
    }

    impl CommonRegisters for Device {
        fn read(&self, at: u32, _: usize) -> Result<u32> {
            let place = self.place(at);
            Ok(match at {
                18 => self.queues,
                30 => place.1 * 2,
                _ => *self.registers.borrow().get(&place).unwrap_or(&0),
            })
        }

        fn write(&self, at: u32, size: usize, value: u32) -> Result<()> {
            assert!(size == 4 || value < 1 << (8 * size));
            let refused = if self.lacks_features { FEATURES_OK } else { 0 };
            let kept = if at == 20 { value & !refused } else { value };
            let place = self.place(at);
            self.registers.borrow_mut().insert(place, kept);
            Ok(())
        }
    }

    fn state() -> DriverState {
        let queue = |number: u32| Queue {
            size: 1024 >> number,
            vector: number + 1,
            is_enabled: true,
            addresses: [[0x1000 + number, 1], [0x2000, 0], [0x3000, number]],
        };
        DriverState {
            features: [0x3000_0000, 1],
            configuration_vector: 0,
            queues: vec![queue(0), queue(1)],
        }
    }

    #[test]
    fn another_device_knows_what_the_first_one_knew() {
        let (first, second) = (Device::new(), Device::new());
        assert_eq!(is_unused(&first), Ok(true));
        assert_eq!(state().restore(&first), Ok(()));
        assert_eq!(is_unused(&first), Ok(false));
        let saved = DriverState::save(&first).expect("it is in use");
        assert_eq!(saved, state());
        assert_eq!(saved.restore(&second), Ok(()));
        assert_eq!(DriverState::save(&second), Ok(state()));
    }

    #[test]
    fn a_queue_that_was_not_used_is_left_alone() {
        let mut state = state();
        state.queues[1] = Queue::default();
        let device = Device::new();
        assert_eq!(state.restore(&device), Ok(()));
        assert!(!device.registers.borrow().contains_key(&(24, 1)));
        assert_eq!(DriverState::save(&device), Ok(state));
    }

    #[test]
    fn what_cannot_go_on_is_refused() {
        let refusal = |outcome: Result<()>| outcome.expect_err("refused").message;
        let unused = DriverState::save(&Device::new()).map(|_| ());
        assert_eq!(refusal(unused), "no driver works with the device");
        let other = Device {
            queues: 3,
            ..Device::new()
        };
        assert_eq!(
            refusal(state().restore(&other)),
            "the new device has 3 queues, and the old one had 2"
        );
        let poor = Device {
            lacks_features: true,
            ..Device::new()
        };
        assert_eq!(
            refusal(state().restore(&poor)),
            "the new device does not have the old one's features"
        );
    }

    #[test]
    fn each_queue_has_its_notification() {
        assert_eq!(notify_offsets(&Device::new()), Ok(vec![0, 2]));
    }
}
