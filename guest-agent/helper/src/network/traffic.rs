//! Traffic control: sending everything that arrives at one link out of another (tc-mirred(8)).

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::message::{Request, u32_at};
use super::netlink::Netlink;

/// The place of packets that arrive, and the number of the queueing discipline there (linux/pkt_sched.h).
const TC_H_INGRESS: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_0000;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// The priority of husk's filters, by which they are known again ("hu").
const PRIORITY: u32 = 0x6875;

/// The filter decides by itself: no other is asked.
const TC_U32_TERMINAL: u8 = 1;
/// The packet is the action's from there on.
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;

/// Sends every packet that arrives at link `from` out of link `to`, in place of handing it to the host. On failure, nothing is left.
pub fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> Result<()> {
    add_ingress(netlink, from)?;
    let filtered = netlink.ask(filter(from, to)).context("cannot redirect its packets (does the kernel have cls_u32 and act_mirred?)");
    if filtered.is_err() {
        stop(netlink, from).context("cannot undo the redirection")?;
    }
    filtered
}

/// Ends what `redirect` began. What is gone already is no error, and what somebody else set up there is left alone.
pub fn stop(netlink: &mut Netlink, link: u32) -> Result<()> {
    let filters = netlink.dump(libc::RTM_GETTFILTER, &header(link, 0, INGRESS, 0))?;
    let priorities = filters.iter().filter_map(|body| Some(u32_at(body, 16)? >> 16)).collect::<Vec<_>>();
    // Without any filter, it was left by an attempt that was killed.
    if !priorities.is_empty() && !priorities.contains(&PRIORITY) {
        return Ok(());
    }
    let mut request = Request::new(libc::RTM_DELQDISC, 0, &header(link, INGRESS, TC_H_INGRESS, 0));
    request.text(TCA_KIND, "ingress");
    match netlink.ask(request) {
        // The link, or the discipline, is not there; or there is one of another kind, which is not ours.
        Ok(()) | Err(Errno::ENODEV | Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Err(error) => Err(error).context("cannot end the redirection of its packets"),
    }
}

fn add_ingress(netlink: &mut Netlink, link: u32) -> Result<()> {
    let mut request = Request::new(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &header(link, INGRESS, TC_H_INGRESS, 0));
    request.text(TCA_KIND, "ingress");
    match netlink.ask(request) {
        Err(Errno::EEXIST) => anyhow::bail!("somebody else handles the packets that arrive there (see tc qdisc)"),
        other => other.context("cannot take over its packets (does the kernel have sch_ingress?)"),
    }
}

/// A filter at `from` that matches every packet of every protocol, and redirects it to `to`.
fn filter(from: u32, to: u32) -> Request {
    let every_protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let fixed = header(from, 0, INGRESS, PRIORITY << 16 | every_protocol);
    let mut request = Request::new(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed);
    request.text(TCA_KIND, "u32");
    let options = request.open(TCA_OPTIONS);
    request.attribute(TCA_U32_SEL, &match_everything());
    let actions = request.open(TCA_U32_ACT);
    let first = request.open(1);
    request.text(TCA_ACT_KIND, "mirred");
    let settings = request.open(TCA_ACT_OPTIONS);
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex
    let mirred = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to];
    request.attribute(TCA_MIRRED_PARMS, &mirred.map(u32::to_ne_bytes).concat());
    for nest in [settings, first, actions, options] {
        request.close(nest);
    }
    request
}

/// struct tc_u32_sel with one struct tc_u32_key, whose mask lets everything through.
fn match_everything() -> Vec<u8> {
    let mut selector = vec![0; 16 + 16];
    selector[0] = TC_U32_TERMINAL;
    // nkeys
    selector[2] = 1;
    selector
}

/// struct tcmsg
fn header(link: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, link, handle, parent, info].map(u32::to_ne_bytes).concat()
}
