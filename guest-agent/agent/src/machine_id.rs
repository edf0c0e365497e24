//! The guest's machine-id(5). In a template there is none yet: each machine that is made of it gets one of its own, as any machine that is booted.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Context, Failure, Result};

const PATH: &str = "/etc/machine-id";
/// 128 bits in hexadecimal.
const DIGITS: usize = 32;

/// The file, open for as long as the machine runs, and already as long as it will be: to write the number is one call then.
pub struct MachineId(File);

impl MachineId {
    /// Makes the file, with no machine's number in it.
    pub fn prepare() -> Result<Self> {
        Self::at(Path::new(PATH))
    }

    fn at(path: &Path) -> Result<Self> {
        let what = || format!("make {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(what)?;
        }
        let file = File::create(path).context(what)?;
        file.write_all_at(format!("{}\n", "0".repeat(DIGITS)).as_bytes(), 0)
            .context(what)?;
        Ok(MachineId(file))
    }

    /// Makes this the machine of that number: 32 lower-case hexadecimal digits.
    pub fn set(&self, id: &str) -> Result<()> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != DIGITS || !id.bytes().all(is_digit) {
            return Err(Failure::invalid(format!(
                "machine_id: expected {DIGITS} lower-case hexadecimal digits, got {id:?}"
            )));
        }
        self.0
            .write_all_at(id.as_bytes(), 0)
            .context(|| format!("write {PATH}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_takes_the_place_of_none_and_of_another() {
        let path = std::env::temp_dir().join(format!("husk-machine-id-{}", std::process::id()));
        let read = || fs::read_to_string(&path).expect("read the file");
        let machine_id = MachineId::at(&path).expect("make the file");
        let before = read();
        for digit in ["a", "7"] {
            machine_id.set(&digit.repeat(DIGITS)).expect("set it");
            assert_eq!(read(), format!("{}\n", digit.repeat(DIGITS)));
        }
        let refused = machine_id.set("A0").expect_err("no number");
        fs::remove_file(&path).expect("clean up");
        assert_eq!(before, format!("{}\n", "0".repeat(DIGITS)));
        assert_eq!(
            refused.message,
            "machine_id: expected 32 lower-case hexadecimal digits, got \"A0\""
        );
    }
}
