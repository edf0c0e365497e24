//! The container's /etc/passwd and /etc/group: read as files, since the agent is static and the container's C library may be any.

use crate::error::{Class, Failure, Result};

/// Who a process runs as.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// The home folder of a user; `/` where nothing says.
pub fn home(passwd: &str, uid: u32) -> &str {
    accounts(passwd)
        .find(|account| account.uid == uid)
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
}

/// Looks up "user", "user:group", by names or numbers, as `docker run --user` does. Numbers need no entry.
pub fn look_up(wanted: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user_name, group_name) = wanted
        .split_once(':')
        .map_or((wanted, None), |(user, group)| (user, Some(group)));
    let number = user_name.parse::<u32>().ok();
    let account =
        accounts(passwd).find(|account| account.name == user_name || Some(account.uid) == number);
    let uid = account.as_ref().map(|account| account.uid).or(number);
    let uid = uid.ok_or_else(|| {
        Failure::new(
            Class::UserNotFound,
            format!("user {user_name:?}: no such user in the container's /etc/passwd"),
        )
    })?;
    let Some(group_name) = group_name.filter(|name| !name.is_empty()) else {
        let member = |group: &Group| {
            account.as_ref().is_some_and(|account| {
                group
                    .members
                    .split(',')
                    .any(|member| member == account.name)
            })
        };
        let gid = account.as_ref().map_or(0, |account| account.gid);
        return Ok(Identity {
            uid,
            gid,
            groups: groups(group)
                .filter(member)
                .map(|group| group.gid)
                .collect(),
        });
    };
    let number = group_name.parse::<u32>().ok();
    let gid = groups(group)
        .find(|group| group.name == group_name)
        .map(|group| group.gid)
        .or(number);
    let gid = gid.ok_or_else(|| {
        Failure::new(
            Class::UserNotFound,
            format!("group {group_name:?}: no such group in the container's /etc/group"),
        )
    })?;
    Ok(Identity {
        uid,
        gid,
        groups: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nann:x:1000:1001:Ann:/home/ann:/bin/sh\nnobody:x:65534:65534::\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\nvideo:x:44:bob,ann\naudio:x:29:bob\n";

    #[test]
    fn a_user_by_name_brings_its_groups() {
        assert_eq!(
            look_up("ann", PASSWD, GROUP),
            Ok(Identity {
                uid: 1000,
                gid: 1001,
                groups: vec![44]
            })
        );
        assert_eq!(
            look_up("1000", PASSWD, GROUP),
            Ok(Identity {
                uid: 1000,
                gid: 1001,
                groups: vec![44]
            })
        );
    }

    #[test]
    fn an_explicit_group_is_the_only_one() {
        assert_eq!(
            look_up("ann:audio", PASSWD, GROUP),
            Ok(Identity {
                uid: 1000,
                gid: 29,
                groups: vec![]
            })
        );
        assert_eq!(
            look_up("7:8", PASSWD, GROUP),
            Ok(Identity {
                uid: 7,
                gid: 8,
                groups: vec![]
            })
        );
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(
            look_up("4242", "", ""),
            Ok(Identity {
                uid: 4242,
                gid: 0,
                groups: vec![]
            })
        );
    }

    #[test]
    fn unknown_names_are_named() {
        let message = |wanted| look_up(wanted, PASSWD, GROUP).map_err(|failure| failure.message);
        assert_eq!(
            message("eve"),
            Err("user \"eve\": no such user in the container's /etc/passwd".into())
        );
        assert_eq!(
            message("ann:eves"),
            Err("group \"eves\": no such group in the container's /etc/group".into())
        );
    }

    #[test]
    fn the_home_is_that_of_the_entry() {
        assert_eq!(home(PASSWD, 1000), "/home/ann");
        assert_eq!(home(PASSWD, 65534), "/");
        assert_eq!(home(PASSWD, 5), "/");
    }
}
