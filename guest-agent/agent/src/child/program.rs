//! Finding the program, and becoming it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, execve, faccessat};

use crate::error::{Class, Context, Failure, Result};
use crate::spec::Process;
use crate::sys;

/// A program that can be executed: where it is, what it is told.
#[derive(Debug)]
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// The variables that it gets, HOME among them.
    pub fn environment(&self) -> Vec<String> {
        let text = |entry: &CString| entry.to_string_lossy().into_owned();
        self.environment.iter().map(text).collect()
    }
}

/// Looks args\[0\] up in the container's PATH, with the user's rights, in the working directory. Says at once what a start would only find out
/// later: that it is not there, or cannot be executed.
pub fn find(process: &Process, home: &str) -> Result<Program> {
    let name = process
        .args
        .first()
        .ok_or_else(|| Failure::invalid("process.args: expected at least one"))?;
    let mut environment = process.env.clone();
    if !environment
        .iter()
        .any(|entry| entry.starts_with("HOME=") && entry != "HOME=")
    {
        environment.retain(|entry| entry != "HOME=");
        environment.push(format!("HOME={home}"));
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    let found = look_up(name, path)?;
    let strings = |list: &[String], what| {
        list.iter()
            .map(|item| sys::c_string(item.as_str()).class(Class::InvalidArgument, || what))
            .collect::<Result<Vec<_>>>()
    };
    Ok(Program {
        path: sys::c_string(found).class(Class::InvalidArgument, || "process.args")?,
        arguments: strings(&process.args, "process.args: a NUL byte")?,
        environment: strings(&environment, "process.env: a NUL byte")?,
    })
}

/// The path of a program's name, as execvp(3) finds it.
fn look_up(name: &str, path: &str) -> Result<String> {
    if name.contains('/') {
        return match usable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(Failure::new(
                Class::ProgramNotFound,
                format!("exec {name:?}: no such file or directory"),
            )),
            Err(errno) => Err(not_executable(name, errno)),
        };
    }
    let mut refused = None;
    for folder in path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{name}");
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => refused = refused.or(Some(not_executable(&candidate, errno))),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Failure::new(
            Class::ProgramNotFound,
            format!("exec {name:?}: executable file not found in $PATH"),
        )
    }))
}

fn usable(path: &str) -> nix::Result<()> {
    let mode = stat(path)?.st_mode;
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    // Not eaccess, with which the C library asks for the rights of the real user where both are the same, and those have no capabilities.
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // The kernel has no such answer: it is a filter's, made before there was this call. What execve says is told later.
        Err(Errno::EPERM) if mode & 0o111 != 0 => Ok(()),
        Err(Errno::EPERM) => Err(Errno::EACCES),
        answer => answer,
    }
}

fn not_executable(path: &str, errno: Errno) -> Failure {
    let why = match errno {
        Errno::EISDIR => "is a directory",
        Errno::EACCES => "permission denied",
        Errno::ENOEXEC => "exec format error",
        errno => errno.desc(),
    };
    Failure::new(Class::ProgramNotExecutable, format!("exec {path:?}: {why}"))
}

impl Program {
    /// Becomes the program. Returns only the reason why that could not be.
    pub fn execute(self) -> Failure {
        let result: nix::Result<Infallible> =
            execve(&self.path, &self.arguments, &self.environment);
        let Err(errno) = result;
        let path = self.path.to_string_lossy();
        match errno {
            // The file was found a moment ago: what is missing is what it asks to be run by.
            Errno::ENOENT => match interpreter(&path) {
                Some(interpreter) => Failure::new(
                    Class::ProgramNotFound,
                    format!(
                        "exec {path:?}: its interpreter {interpreter:?} does not exist in the container"
                    ),
                ),
                None => Failure::new(
                    Class::ProgramNotFound,
                    format!("exec {path:?}: it, or the loader it asks for, does not exist"),
                ),
            },
            Errno::ENOTDIR => Failure::new(
                Class::ProgramNotFound,
                format!("exec {path:?}: no such file or directory"),
            ),
            errno => not_executable(&path, errno),
        }
    }
}

/// What the `#!` line of a script names.
fn interpreter(path: &str) -> Option<String> {
    let mut start = [0; 256];
    // Not held up by a FIFO that has taken the file's place.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let count = file.ok()?.read(&mut start).ok()?;
    let line = start[..count]
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let words = String::from_utf8_lossy(line);
    words.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, path: &str) -> (Class, String) {
        let failure = look_up(name, path).expect_err("a failure");
        (failure.class, failure.message)
    }

    #[test]
    fn finds_a_program_in_the_path() {
        assert_eq!(look_up("sh", "/nowhere:/bin"), Ok("/bin/sh".into()));
        assert_eq!(look_up("/bin/sh", ""), Ok("/bin/sh".into()));
    }

    #[test]
    fn says_why_there_is_none() {
        let folder = std::env::temp_dir().join(format!("husk-program-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("plain"), "").expect("a file");
        let folder_name = folder.to_str().expect("a name").to_owned();
        let (absent, refused) = (Class::ProgramNotFound, Class::ProgramNotExecutable);
        let expected = |class, text: String| (class, text);
        assert_eq!(
            message("sh", "/nowhere"),
            expected(
                absent,
                "exec \"sh\": executable file not found in $PATH".into()
            )
        );
        assert_eq!(
            message("/nowhere", "/bin"),
            expected(
                absent,
                "exec \"/nowhere\": no such file or directory".into()
            )
        );
        assert_eq!(
            message("/etc", ""),
            expected(refused, "exec \"/etc\": is a directory".into())
        );
        assert_eq!(
            message("plain", &format!("/nowhere:{folder_name}")),
            expected(
                refused,
                format!("exec \"{folder_name}/plain\": permission denied")
            )
        );
        fs::remove_dir_all(folder).expect("to clean up");
    }

    #[test]
    fn the_home_is_added_where_the_environment_has_none() {
        let process = |env: &str| Process {
            args: vec!["/bin/sh".into()],
            env: vec![env.into()],
            ..Process::default()
        };
        let entries = |env| find(&process(env), "/root").expect("a program").environment;
        assert_eq!(
            entries("A=b"),
            [c"A=b".to_owned(), c"HOME=/root".to_owned()]
        );
        assert_eq!(entries("HOME=/x"), [c"HOME=/x".to_owned()]);
        assert_eq!(entries("HOME="), [c"HOME=/root".to_owned()]);
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let path = std::env::temp_dir().join(format!("husk-script-{}", std::process::id()));
        fs::write(&path, "#!/no/such/interpreter -x\n").expect("a script");
        assert_eq!(
            interpreter(path.to_str().expect("a path")),
            Some("/no/such/interpreter".into())
        );
        fs::remove_file(path).expect("to clean up");
    }
}
