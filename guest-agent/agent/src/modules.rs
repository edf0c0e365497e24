//! Kernel modules: those that the image lists, and those that the kernel asks for.
//!
//! Only Debian's stock kernel needs this; our own has everything built in, and the files are then absent.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::console;
use crate::error::{Context, Failure, Result};

/// Where the kernel finds this program as its helper: by this path in the initramfs itself, which has no other mounts.
const HELPER: &str = "/sbin/modprobe";

/// The release of the running kernel.
pub fn kernel_release() -> Result<String> {
    let names = nix::sys::utsname::uname().context(|| "uname")?;
    Ok(names.release().to_string_lossy().into_owned())
}

fn has_modules() -> bool {
    kernel_release().is_ok_and(|release| Path::new("/lib/modules").join(release).exists())
}

/// Makes this program the kernel's helper for modules, where there are modules.
pub fn install_helper() {
    if !has_modules() {
        return;
    }
    let installed = fs::create_dir_all("/sbin")
        .and_then(|()| match std::os::unix::fs::symlink("/init", HELPER) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        })
        .and_then(|()| fs::write("/proc/sys/kernel/modprobe", HELPER));
    if let Err(error) = installed {
        console::log(format_args!(
            "modules will not be loaded on demand: {error}"
        ));
    }
}

/// Loads the modules that a file lists, one name a line. One that fails is told of, and does not keep the machine from starting: whatever
/// needs it says what it misses.
pub fn load_listed(list: &Path) {
    let Ok(text) = fs::read_to_string(list) else {
        return;
    };
    let modules = match Modules::open() {
        Ok(modules) => modules,
        Err(failure) => return console::log(failure),
    };
    let mut loaded = HashSet::new();
    for name in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Err(failure) = modules.load(name, &mut loaded) {
            console::log(failure);
        }
    }
}

/// Loads a module, where there are modules: a kernel without them has everything built in.
pub fn load_now(name: &str) -> Result<()> {
    if !has_modules() {
        return Ok(());
    }
    Modules::open()?.load(name, &mut HashSet::new())
}

/// The face of modprobe: `modprobe [-q] [--] NAME`, as the kernel calls it.
pub fn modprobe(arguments: &[OsString]) -> ExitCode {
    let names = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .filter(|argument| !argument.starts_with('-'));
    let mut loaded = HashSet::new();
    let outcome = Modules::open().and_then(|modules| {
        for name in names {
            modules.load(name, &mut loaded)?;
        }
        Ok(())
    });
    // The kernel probes for what need not exist, so a failure is nothing to speak of.
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What depmod wrote about the kernel's modules.
struct Modules {
    folder: PathBuf,
    dependencies: String,
    aliases: String,
    builtin: String,
}

impl Modules {
    fn open() -> Result<Self> {
        let folder = Path::new("/lib/modules").join(kernel_release()?);
        let dependencies = folder.join("modules.dep");
        let dependencies = fs::read_to_string(&dependencies)
            .context(|| format!("read {}", dependencies.display()))?;
        // An image with few modules may come without these two.
        let aliases = fs::read_to_string(folder.join("modules.alias")).unwrap_or_default();
        let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        Ok(Modules {
            folder,
            dependencies,
            aliases,
            builtin,
        })
    }

    /// Loads a module by name or alias, those that it depends on first.
    fn load(&self, name: &str, loaded: &mut HashSet<String>) -> Result<()> {
        let lines = self.lines_for(name);
        if lines.is_empty() && !self.is_builtin(name) {
            return Err(Failure::other(format!(
                "module {name}: not in this image's modules.dep"
            )));
        }
        for line in lines {
            // "kernel/fs/a.ko: kernel/b.ko kernel/c.ko": what it needs, the innermost last.
            let (module, needed) = line.split_once(':').unwrap_or((line, ""));
            for path in needed.split_ascii_whitespace().rev().chain([module]) {
                if loaded.insert(path.to_owned()) {
                    self.insert(path)?;
                }
            }
        }
        Ok(())
    }

    fn insert(&self, path: &str) -> Result<()> {
        let file = File::open(self.folder.join(path)).context(|| format!("module {path}"))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(Failure::other(format!("module {path}: {errno}"))),
        }
    }

    /// The lines of modules.dep for a name, or for the modules that have it as an alias.
    fn lines_for(&self, name: &str) -> Vec<&str> {
        if let Some(line) = self.line_of(name) {
            return vec![line];
        }
        let matching = self.aliases.lines().filter_map(|line| {
            let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            matches(pattern, name).then_some(module)
        });
        matching.filter_map(|module| self.line_of(module)).collect()
    }

    fn line_of(&self, name: &str) -> Option<&str> {
        self.dependencies.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|path| same_module(path, name))
        })
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.lines().any(|path| same_module(path, name))
    }
}

/// Whether a path's file is the module of a name; `-` and `_` are the same in module names.
fn same_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.len() == name.len()
        && stem
            .bytes()
            .zip(name.bytes())
            .all(|(left, right)| plain(left) == plain(right))
}

fn plain(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// Matches an alias pattern: `*`, `?` and sets in brackets, as fnmatch(3).
fn matches(pattern: &str, text: &str) -> bool {
    match_bytes(pattern.as_bytes(), text.as_bytes())
}

fn match_bytes(pattern: &[u8], text: &[u8]) -> bool {
    // The place after the last star, and what text it had to match from then on.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut here) = (0, 0);
    while here < text.len() {
        let step = match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, here));
                at += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => match_set(&pattern[at..], text[here]),
            Some(&byte) if plain(byte) == plain(text[here]) => Some(1),
            _ => None,
        };
        match (step, retry) {
            (Some(length), _) => (at, here) = (at + length, here + 1),
            (None, Some((after_star, from))) => {
                retry = Some((after_star, from + 1));
                (at, here) = (after_star, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// The length of a set such as `[0-9A]` where it holds the byte.
fn match_set(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|&byte| byte == b']')?;
    let set = &pattern[1..end];
    let mut index = 0;
    let mut found = false;
    while index < set.len() {
        if set.get(index + 1) == Some(&b'-') && index + 2 < set.len() {
            found |= (set[index]..=set[index + 2]).contains(&byte);
            index += 3;
        } else {
            found |= set[index] == byte;
            index += 1;
        }
    }
    found.then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_patterns() {
        assert!(matches("virtio:d0000001Av*", "virtio:d0000001Av00001AF4"));
        assert!(matches("fs-ext4", "fs-ext4"));
        assert!(matches("net-pf-16-proto-4", "net_pf_16_proto_4"));
        assert!(matches("pci:v*d*sv*bc0[0-9C]sc?", "pci:v1d2sv3bc0Csc7"));
        assert!(!matches("fs-ext4", "fs-ext"));
        assert!(!matches("a*b[0-9]", "aXb"));
    }

    fn modules() -> Modules {
        Modules {
            folder: PathBuf::from("/nowhere"),
            dependencies: "kernel/fs/fuse/virtiofs.ko: kernel/fs/fuse/fuse.ko\nkernel/fs/fuse/fuse.ko:\nkernel/net/nf-x.ko.xz:\n".into(),
            aliases: "# comment\nalias fs-virtiofs virtiofs\nalias virtio:d0000001Av* virtiofs\n".into(),
            builtin: "kernel/fs/ext4/ext4.ko\n".into(),
        }
    }

    #[test]
    fn a_module_is_found_by_name_and_by_alias() {
        let modules = modules();
        let line = "kernel/fs/fuse/virtiofs.ko: kernel/fs/fuse/fuse.ko";
        assert_eq!(modules.lines_for("virtiofs"), [line]);
        assert_eq!(modules.lines_for("fs-virtiofs"), [line]);
        assert_eq!(modules.lines_for("virtio:d0000001Av00001AF4"), [line]);
        assert_eq!(modules.lines_for("nf_x"), ["kernel/net/nf-x.ko.xz:"]);
    }

    #[test]
    fn built_in_is_as_good_as_loaded() {
        assert_eq!(modules().load("ext4", &mut HashSet::new()), Ok(()));
        let failure = modules()
            .load("moon", &mut HashSet::new())
            .expect_err("a failure");
        assert_eq!(
            failure.message,
            "module moon: not in this image's modules.dep"
        );
    }
}
