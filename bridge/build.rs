//! Finds out whether OpenH264 gets its assembly, which its own build leaves out in silence where `nasm` is missing.
//!
//! Sets `freshet_h264_assembly`. Looks at the same things as the build of `openh264-sys2` does, so it errs only if
//! `nasm` came or went between the two.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=OPENH264_NO_ASM");
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::rustc-check-cfg=cfg(freshet_h264_assembly)");
    let has_assembly = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64" | "x86") => env::var_os("OPENH264_NO_ASM").is_none() && has_nasm(),
        // The C compiler assembles NEON itself.
        Ok("aarch64" | "arm") => true,
        _ => false,
    };
    if has_assembly {
        println!("cargo::rustc-cfg=freshet_h264_assembly");
    } else {
        println!("cargo::warning=OpenH264 is built without assembly, at half the speed: install nasm");
    }
}

fn has_nasm() -> bool {
    Command::new("nasm").arg("-v").output().is_ok_and(|output| output.status.success())
}
