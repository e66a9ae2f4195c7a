use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use freshet_bridge::record::RecordPlan;
use freshet_media::StreamKey;

use super::super::{Origin, RecordRequest, Shared, Totals};
use super::*;
use crate::hooks::Hooks;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("freshet-record-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A writer without its thread.
fn writer(folder: &Folder, min_free_bytes: u64) -> Writer {
    let key = StreamKey::new("", "live", "cam").unwrap();
    let request = RecordRequest { key, format: RecordFormat::Flv, plan: RecordPlan::Session, origin: Origin::Api };
    let shared = Arc::new(Shared { totals: Totals::default(), hooks: Hooks::default() });
    let recording = Recording::new("id".to_owned(), request, shared);
    let place = Place { folder: folder.0.clone(), min_free_bytes };
    Writer { recording, place, open: None, ended: None }
}

fn open(stem: &str) -> Job {
    Job::Open(Box::new(NewFile { stem: stem.to_owned(), started_at: UNIX_EPOCH, publisher: None }))
}

fn write(data: &'static [u8]) -> Job {
    Job::Write(Bytes::from_static(data), Duration::from_secs(1))
}

/// Does jobs as the thread does, up to its end.
fn run(writer: &Writer, jobs: Vec<Job>) {
    let (sender, queue) = mpsc::channel(jobs.len().max(1));
    jobs.into_iter().for_each(|job| sender.try_send(job).unwrap());
    drop(sender);
    let (recording, place) = (Arc::clone(&writer.recording), writer.place.clone());
    Writer { recording, place, open: None, ended: None }.run(queue);
}

#[test]
fn nothing_is_overwritten_and_patches_find_their_place() {
    let folder = Folder::new("names");
    let disk = writer(&folder, 0);
    let file = || vec![open("a/b/x"), write(b"0123456789"), Job::WriteAt(3, Bytes::from_static(b"__")), Job::Close];
    for _ in 0..3 {
        run(&disk, file());
    }
    let snapshot = disk.recording.snapshot();
    let names: Vec<_> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["a/b/x.flv", "a/b/x-2.flv", "a/b/x-3.flv"]);
    for name in names {
        assert_eq!(std::fs::read(folder.0.join(name)).unwrap(), b"012__56789");
    }
    assert!(snapshot.files.iter().all(|file| file.is_complete && !file.is_open && file.bytes == 10));
    assert_eq!((snapshot.bytes, snapshot.duration, snapshot.error), (30, Duration::from_secs(3), None));
}

#[test]
fn a_thread_that_ends_closes_its_file_and_says_that_it_is_not_whole() {
    let folder = Folder::new("end");
    let disk = writer(&folder, 0);
    run(&disk, vec![open("x"), write(b"0123")]);
    let snapshot = disk.recording.snapshot();
    assert_eq!((snapshot.files[0].is_open, snapshot.files[0].is_complete, snapshot.bytes), (false, false, 4));
    // A file without content is none.
    run(&disk, vec![open("y"), Job::Close]);
    assert_eq!((disk.recording.snapshot().files.len(), folder.0.join("y.flv").exists()), (1, false));
}

#[test]
fn trouble_ends_the_file_and_the_next_one_mends_it() {
    let folder = Folder::new("trouble");
    let mut disk = writer(&folder, u64::MAX);
    run(&disk, vec![open("x"), write(b"0123"), Job::Close]);
    let said = disk.recording.snapshot().error.unwrap();
    assert!(said.contains("MB left, record.min_free_mb is"), "{said}");
    disk.place.min_free_bytes = 0;
    run(&disk, vec![open("x"), write(b"0123"), Job::Close]);
    let snapshot = disk.recording.snapshot();
    assert_eq!((snapshot.error, snapshot.bytes, snapshot.files.len()), (None, 4, 1));
    // Something is in the way of the folder.
    run(&disk, vec![open("x.flv/y"), write(b"0123"), Job::Close]);
    let said = disk.recording.snapshot().error.unwrap();
    assert!(said.contains("x.flv"), "{said}");
}

#[test]
fn a_file_that_somebody_removes_is_noticed() {
    static MUCH: [u8; CHECK_BYTES as usize] = [0; CHECK_BYTES as usize];
    let folder = Folder::new("removed");
    let mut disk = writer(&folder, 0);
    disk.do_job(open("x")).unwrap();
    disk.do_job(write(b"0123")).unwrap();
    std::fs::remove_dir_all(&folder.0).unwrap();
    disk.do_job(write(b"0123")).unwrap();
    assert!(disk.do_job(write(&MUCH)).is_err());
    run(&disk, vec![open("z"), write(b"0123"), Job::Close]);
    assert!(folder.0.join("z.flv").exists(), "the folder is made anew");
}
