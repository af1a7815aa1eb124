//! What comes of a program that a hook ran, and what the kernel goes on with.

use super::fire::Fire;
use super::links::{Hooked, Stage};
use super::{Hook, LwtHook};
use bpfsim_abi::{AttachType, Errno};

/// Verdicts.
pub(super) const XDP_PASS: i64 = 2;
pub(super) const TC_ACT_UNSPEC: i32 = -1;
const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: i64 = 1;
pub(super) const SK_PASS: u32 = 1;
pub(super) const FLOW_DISSECTOR_CONTINUE: i64 = 129;
/// `-MAX_ERRNO`
const LEAST_ERRNO: i64 = -4095;
/// `NET_XMIT_DROP`, `NET_XMIT_CN`
const NET_XMIT_DROP: i64 = 1;
const NET_XMIT_CN: i64 = 2;

impl Fire {
    /// Programs say whether a cgroup allows it, and `bpf_set_retval` what is answered.
    pub(super) fn asks_cgroup(&self, hooked: &Hooked) -> bool {
        matches!(self.hook, Hook::Cgroup { .. }) || hooked.stage == Stage::LsmCgroup
    }

    /// A socket is bound: programs can also say that a port needs no capability.
    fn binds(&self) -> bool {
        use AttachType::{CgroupInet4Bind, CgroupInet6Bind};
        let Hook::Cgroup { what, .. } = &self.hook else {
            return false;
        };
        matches!(what, CgroupInet4Bind | CgroupInet6Bind)
    }

    /// A program put another result in the place of the function's (`override_function_with_return`).
    pub(super) fn overridden_by(&mut self, hooked: &Hooked, with: u64) {
        self.returns = with as i64;
        if matches!(hooked.stage, Stage::Return | Stage::MultiReturn) {
            return;
        }
        self.overridden = true;
        // The function is not executed. What is behind this kprobe is not called: older ones, and
        // those that probe its return too.
        let goes_on = |h: &Hooked| match h.stage {
            Stage::Return => h.link > hooked.link,
            Stage::MultiEntry | Stage::MultiReturn => true,
            _ => false,
        };
        self.rest.retain(goes_on);
    }

    /// A program returned: what comes of it, and what is not to run any more.
    pub(super) fn returned(&mut self, hooked: &Hooked, r0: u32) {
        let signed = i64::from(r0 as i32);
        match (&self.hook, hooked.stage) {
            (_, Stage::Devmap) => {}
            (_, Stage::FmodRet) if r0 != 0 => {
                (self.overridden, self.returns) = (true, signed);
                let stays = |h: &Hooked| !matches!(h.stage, Stage::FmodRet | Stage::LsmCgroup);
                self.rest.retain(stays);
            }
            (_, Stage::MultiEntry) | (Hook::UserFunction { .. }, Stage::Entry) if r0 != 0 => {
                self.no_return.extend(hooked.link);
            }
            (_, Stage::Tcx) if r0 as i32 != TC_ACT_UNSPEC => {
                self.rest.retain(|h| h.stage != Stage::Tcx);
                if tcx_verdict(r0) {
                    self.out.result = signed;
                    self.rest.clear();
                }
            }
            (_, Stage::Tc) if tc_verdict(r0) => {
                self.out.result = signed;
                self.rest.clear();
            }
            _ if self.asks_cgroup(hooked) => {
                let congestion = matches!(
                    self.hook,
                    Hook::Cgroup {
                        what: AttachType::CgroupInetEgress,
                        ..
                    }
                );
                self.congested |= congestion && r0 >> 1 & 1 != 0;
                // Where more than yes and no can be said, that is the last bit.
                let allowed = match congestion || self.binds() {
                    true => r0 & 1 != 0,
                    false => r0 != 0,
                };
                // The first errno stays.
                if !allowed && !(LEAST_ERRNO..0).contains(&self.returns) {
                    self.returns = -i64::from(Errno::EPERM.0);
                }
            }
            (Hook::StructOps { .. }, _) => self.returns = signed,
            (Hook::Netfilter { .. }, _) if r0 == NF_DROP => {
                self.out.result = signed;
                self.rest.clear();
            }
            (Hook::Lwt { what, .. }, _) => self.out.result = lwt_verdict(*what, r0),
            (Hook::SkLookup, _) => self.out.result &= i64::from(r0 == SK_PASS),
            (Hook::Tracepoint { .. }, _) => self.out.result &= i64::from(r0 != 0),
            (Hook::PerfEvent(_), _) => self.out.result = i64::from(r0 != 0),
            (
                Hook::Xdp { .. }
                | Hook::FlowDissector
                | Hook::Sock(_)
                | Hook::SockMap { .. }
                | Hook::Iter(_),
                _,
            ) => self.out.result = i64::from(r0),
            _ => {}
        }
    }

    /// All programs ran.
    pub(super) fn conclude(&mut self) {
        match &self.hook {
            Hook::Function { .. }
            | Hook::UserFunction { .. }
            | Hook::Lsm(_)
            | Hook::StructOps { .. } => {
                self.out.result = self.returns;
            }
            Hook::Cgroup {
                what: AttachType::CgroupInetEgress,
                ..
            } => {
                self.out.result = match (self.returns, self.congested) {
                    (0, false) => 0,
                    (0, true) => NET_XMIT_CN,
                    (_, true) => NET_XMIT_DROP,
                    (errno, false) => errno,
                };
            }
            Hook::Cgroup { .. } => self.out.result = self.returns,
            Hook::SkLookup => self.out.result |= i64::from(self.selected.is_some()),
            _ => {}
        }
    }
}

/// Whether a verdict of tcx ends the chain and `tc` with it (`tcx_action_code`): others end the
/// chain only.
fn tcx_verdict(r0: u32) -> bool {
    const PASS: u32 = 0;
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    matches!(r0, PASS | DROP | REDIRECT)
}

/// Whether a filter's result is a verdict (`cls_bpf_exec_opcode`): after others the next one runs.
fn tc_verdict(r0: u32) -> bool {
    const OK: u32 = 0;
    const SHOT: u32 = 2;
    const STOLEN: u32 = 4;
    const REDIRECT: u32 = 7;
    const TRAP: u32 = 8;
    matches!(r0, OK | SHOT | STOLEN | REDIRECT | TRAP)
}

/// What becomes of a packet of a route (`run_lwt_bpf`, `input_action_end_bpf`).
fn lwt_verdict(what: LwtHook, r0: u32) -> i64 {
    const OK: u32 = 0;
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    const REROUTE: u32 = 128;
    let errno = |e: Errno| -i64::from(e.0);
    match (what, r0) {
        (_, OK) => 0,
        (LwtHook::Seg6local | LwtHook::Xmit, REDIRECT) => REDIRECT.into(),
        // Only what is about to be sent is redirected.
        (LwtHook::In | LwtHook::Out, REDIRECT) => 0,
        (LwtHook::Seg6local, _) => errno(Errno::EINVAL),
        (_, REROUTE) => REROUTE.into(),
        (_, DROP) => errno(Errno::EPERM),
        _ => errno(Errno::EINVAL),
    }
}
