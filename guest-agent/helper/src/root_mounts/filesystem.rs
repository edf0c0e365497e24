//! Mounting a file system of the kernel's, with options of any length that an overlay may need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::MsFlags;
use nix::unistd::chdir;

use super::Mount;
use super::loop_device;
use super::options::Options;

/// How much the kernel takes of a mount's options, in bytes: a page, with the zero byte at its end.
const LONGEST_OPTIONS: usize = 4095;

const LOWER: &str = "lowerdir=";

/// Mounts it at `target`, an absolute path. Options that are too long change the process's current folder.
pub fn mount(mount: &Mount, options: &Options, target: &Path) -> Result<()> {
    // Closed once the file system has the device, which ends with it.
    let device = options.loops.then(|| loop_device::attach(&mount.source, options.flags.contains(MsFlags::MS_RDONLY))).transpose()?;
    let source = device.as_ref().map_or(mount.source.as_path(), |(path, _)| path);
    let mut data = options.data.join(",");
    if data.len() > LONGEST_OPTIONS && mount.r#type == "overlay" {
        let Some((folder, shorter)) = shorten(&options.data) else { return too_long(data.len()) };
        chdir(&folder).with_context(|| format!("cannot enter {}", folder.display()))?;
        data = shorter.join(",");
    }
    if data.len() > LONGEST_OPTIONS {
        return too_long(data.len());
    }
    let data = (!data.is_empty()).then_some(data.as_str());
    nix::mount::mount(Some(source), target, Some(mount.r#type.as_str()), options.flags, data)?;
    Ok(())
}

fn too_long(length: usize) -> Result<()> {
    ensure!(length <= LONGEST_OPTIONS, "its options are {length} bytes long, and the kernel takes {LONGEST_OPTIONS}");
    Ok(())
}

/// Names an overlay's lower folders by their paths from the deepest folder that has all of them, as containerd does. Answers that folder too.
fn shorten(options: &[String]) -> Option<(PathBuf, Vec<String>)> {
    let index = options.iter().position(|option| option.starts_with(LOWER))?;
    // Only a lower folder with a colon in its name has a backslash; it is left alone.
    let lower = options[index].strip_prefix(LOWER).filter(|lower| !lower.contains('\\'))?;
    let folders = lower.split(':').map(Path::new).collect::<Vec<_>>();
    let mut common = folders.first()?.parent()?;
    while !folders.iter().all(|folder| folder.starts_with(common) && *folder != common) {
        common = common.parent()?;
    }
    if !common.is_absolute() || common == Path::new("/") {
        return None;
    }
    let names = folders.iter().map(|folder| folder.strip_prefix(common).ok()?.to_str()).collect::<Option<Vec<_>>>()?;
    let mut options = options.to_vec();
    options[index] = format!("{LOWER}{}", names.join(":"));
    Some((common.to_owned(), options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(lower: &str) -> Option<(String, String)> {
        let options = ["workdir=/w", lower, "upperdir=/u"].map(str::to_owned);
        shorten(&options).map(|(folder, options)| (folder.to_str().expect("text").to_owned(), options.join(",")))
    }

    #[test]
    fn lower_folders_are_named_from_the_deepest_folder_that_has_them_all() {
        let expected = |folder: &str, lower: &str| Some((folder.to_owned(), format!("workdir=/w,lowerdir={lower},upperdir=/u")));
        assert_eq!(shortened("lowerdir=/s/3/fs:/s/2/fs:/s/1/fs"), expected("/s", "3/fs:2/fs:1/fs"));
        assert_eq!(shortened("lowerdir=/s/a/x:/s/a/y:/s/ab"), expected("/s", "a/x:a/y:ab"));
        assert_eq!(shortened("lowerdir=/s/a:/s/a/b"), expected("/s", "a:a/b"));
        assert_eq!(shortened("lowerdir=/s/a"), expected("/s", "a"));
        for lower in ["lowerdir=/a/b:/c", "lowerdir=a:b", "lowerdir=/s/a\\:b:/s/c", "lowerdir=", "lowerdir=/s/a::/s/b", "upperdir=/x"] {
            assert_eq!(shortened(lower), None, "{lower}");
        }
    }
}
