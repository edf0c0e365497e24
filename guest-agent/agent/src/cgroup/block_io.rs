//! spec.linux.resources.blockIO.

use super::resources::Setting;
use crate::spec::BlockIo;

/// The settings of the io controller. Weights act where the kernel has BFQ or io.cost.
pub fn settings(block_io: &BlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        settings.push(Setting::new("io.weight", convert_weight(weight)));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight {
            settings.push(Setting::new(
                "io.weight",
                format!(
                    "{}:{} {}",
                    device.major,
                    device.minor,
                    convert_weight(weight)
                ),
            ));
        }
    }
    let throttles = [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ];
    for (key, devices) in throttles {
        for device in devices {
            let rate = if device.rate == 0 {
                "max".to_owned()
            } else {
                device.rate.to_string()
            };
            settings.push(Setting::new(
                "io.max",
                format!("{}:{} {key}={rate}", device.major, device.minor),
            ));
        }
    }
    settings
}

/// blkio.weight (10 to 1000) as io.weight (1 to 10000), as runc does.
fn convert_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_throttles() {
        let json =
            br#"{"weight": 10, "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1000}],
            "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 0}]}"#;
        let block_io: BlockIo = crate::spec::parse("blockIO", json).expect("a blockIO object");
        let lines: Vec<String> = settings(&block_io)
            .into_iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect();
        assert_eq!(
            lines,
            [
                "io.weight=1",
                "io.max=254:0 rbps=1000",
                "io.max=254:0 wiops=max"
            ]
        );
        assert_eq!(convert_weight(1000), 10_000);
    }
}
