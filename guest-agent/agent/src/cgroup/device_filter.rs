//! The kernel's side of device rules: a BPF program on the cgroup, asked for every access and mknod.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;

use super::device_rules::{Kind, Rule};
use crate::error::{Context, Result};

/// struct bpf_insn.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The destination register in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Registers: 0 the answer, 1 the context (later scratch), 2 the type, 3 the access, 4 the major, 5 the minor.
const fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: target | source << 4,
        offset,
        immediate,
    }
}

const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// The program. The rules are asked last one first, and the first that fits decides.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let block = compile_rule(rule);
        program.extend(block);
    }
    // Nothing fits: no.
    program.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

fn compile_rule(rule: &Rule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    match rule.kind {
        Kind::All => {}
        Kind::Character => tests.push(instruction(JUMP_UNLESS_EQUAL, 2, 0, 0, BPF_DEVCG_DEV_CHAR)),
        Kind::Block => tests.push(instruction(JUMP_UNLESS_EQUAL, 2, 0, 0, BPF_DEVCG_DEV_BLOCK)),
    }
    tests.push(instruction(MOVE_REGISTER, 1, 3, 0, 0));
    tests.push(instruction(AND, 1, 0, 0, rule.access as i32));
    // An allowing rule must allow all that is asked; a denying one denies as soon as it has to do with any of it.
    tests.push(if rule.allow {
        instruction(JUMP_UNLESS_EQUAL_REGISTER, 1, 3, 0, 0)
    } else {
        // "Equal to nothing": skipped below by the inverse jump.
        instruction(JUMP_IF_EQUAL, 1, 0, 0, 0)
    });
    tests.extend(
        rule.major
            .map(|major| instruction(JUMP_UNLESS_EQUAL, 4, 0, 0, major as i32)),
    );
    tests.extend(
        rule.minor
            .map(|minor| instruction(JUMP_UNLESS_EQUAL, 5, 0, 0, minor as i32)),
    );
    let length = tests.len() + 2;
    for (index, test) in tests.iter_mut().enumerate() {
        if [JUMP_UNLESS_EQUAL, JUMP_UNLESS_EQUAL_REGISTER, JUMP_IF_EQUAL].contains(&test.code) {
            test.offset = (length - index - 1) as i16;
        }
    }
    tests.extend([
        instruction(MOVE, 0, 0, 0, i32::from(rule.allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    tests
}

const JUMP_IF_EQUAL: u8 = 0x15;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// The part of union bpf_attr that loads a program.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of union bpf_attr that attaches one.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// How often a program is loaded at most, as often as Go's library of eBPF does.
const LOAD_ATTEMPTS: usize = 30;

/// The rules that most containers have, as a program that is loaded already.
static KEPT: OnceLock<(Vec<Rule>, Arc<OwnedFd>)> = OnceLock::new();

/// Loads the program of rules that will be asked for: a machine that is cloned from a template has it, and need not have the kernel verify it.
pub fn keep(rules: Vec<Rule>) -> Result<()> {
    let program = Arc::new(load(&compile(&rules))?);
    // Where there is one already, it is as good.
    let _ = KEPT.set((rules, program));
    Ok(())
}

/// Puts the rules in force on the cgroup, in the place of the program that held before.
pub fn attach(cgroup: &Path, rules: &[Rule], previous: Option<&OwnedFd>) -> Result<Arc<OwnedFd>> {
    let program = match KEPT.get() {
        Some((kept, program)) if kept == rules => program.clone(),
        _ => Arc::new(load(&compile(rules))?),
    };
    let folder = File::open(cgroup).context(|| format!("open {}", cgroup.display()))?;
    let attributes = AttachAttributes {
        target: folder.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if previous.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: previous.map_or(0, |previous| previous.as_raw_fd() as u32),
    };
    // SAFETY: the struct is the beginning of union bpf_attr for this command, with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attributes,
            size_of::<AttachAttributes>(),
        )
    };
    Errno::result(result).context(|| "put the device rules in force")?;
    Ok(program)
}

/// Loads a program. The kernel's verifier gives up where a signal is waiting for the thread, which happens on a busy guest: then it is asked again.
fn load(program: &[Instruction]) -> Result<OwnedFd> {
    (1..LOAD_ATTEMPTS)
        .map(|_| load_once(program))
        .find(|result| !matches!(result, Err(Errno::EAGAIN)))
        .unwrap_or_else(|| load_once(program))
        .context(|| "load the device rules (does the guest's kernel have CONFIG_CGROUP_BPF?)")
}

fn load_once(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the struct is the beginning of union bpf_attr for this command, with its size; the program and the license outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<LoadAttributes>(),
        )
    };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::super::device_rules::{MAKE, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would, for an access.
    fn run(program: &[Instruction], kind: i32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind as u32 | access << 16, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0;
        loop {
            let step = program[at];
            let (target, source) = (
                usize::from(step.registers & 15),
                usize::from(step.registers >> 4),
            );
            at += 1;
            match step.code {
                LOAD_WORD => registers[target] = u64::from(context[step.offset as usize / 4]),
                MOVE_REGISTER => registers[target] = registers[source] & 0xffff_ffff,
                MOVE => registers[target] = step.immediate as u64,
                AND => registers[target] &= u64::from(step.immediate as u32),
                SHIFT_RIGHT => registers[target] >>= step.immediate,
                JUMP_UNLESS_EQUAL if registers[target] != step.immediate as u64 => {
                    at += step.offset as usize
                }
                JUMP_IF_EQUAL if registers[target] == step.immediate as u64 => {
                    at += step.offset as usize
                }
                JUMP_UNLESS_EQUAL_REGISTER if registers[target] != registers[source] => {
                    at += step.offset as usize
                }
                JUMP_UNLESS_EQUAL | JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL_REGISTER => {}
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    const CHARACTER: i32 = BPF_DEVCG_DEV_CHAR;
    const BLOCK: i32 = BPF_DEVCG_DEV_BLOCK;

    fn rule(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u32, allow: bool) -> Rule {
        Rule {
            kind,
            major,
            minor,
            access,
            allow,
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let program = compile(&[
            rule(Kind::All, None, None, READ | WRITE | MAKE, true),
            rule(Kind::Character, Some(246), None, READ | WRITE, false),
        ]);
        assert!(run(&program, BLOCK, READ, 8, 0));
        assert!(run(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(!run(&program, CHARACTER, READ, 246, 1));
        assert!(!run(&program, CHARACTER, READ | WRITE | MAKE, 246, 1));
        assert!(run(&program, CHARACTER, MAKE, 246, 1));
    }

    #[test]
    fn an_allowing_rule_must_allow_all_that_is_asked() {
        let program = compile(&[
            rule(Kind::All, None, None, READ | WRITE | MAKE, false),
            rule(Kind::Block, Some(8), Some(1), READ, true),
        ]);
        assert!(run(&program, BLOCK, READ, 8, 1));
        assert!(!run(&program, BLOCK, READ | WRITE, 8, 1));
        assert!(!run(&program, BLOCK, READ, 8, 2));
        assert!(!run(&program, CHARACTER, READ, 8, 1));
    }

    #[test]
    fn without_rules_nothing_is_allowed() {
        assert!(!run(&compile(&[]), CHARACTER, READ, 1, 3));
    }
}
