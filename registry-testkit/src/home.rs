//! Where servers keep their data: in memory, where there is room. None of them is tested for what it does on a disk that
//! others keep busy, and a build beside the tests is enough to keep one from answering for seconds.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// Folders in memory, as Linux has them.
const MEMORY: &str = "/dev/shm";
/// With less room than that the disk is used: etcd alone takes 128 MiB for each of its members before it starts.
const ROOM: u64 = 8 << 30;

/// A folder, which is removed when it is dropped.
///
/// # Errors
/// It cannot be made.
pub(crate) fn folder() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("callsign-test-");
    // A folder that is there and may not be written, or that is no more when it is needed, is none.
    if has_room(Path::new(MEMORY))
        && let Ok(folder) = builder.tempdir_in(MEMORY)
    {
        return Ok(folder);
    }
    builder.tempdir()
}

fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_until_it_is_dropped() {
        let path = {
            let folder = folder().unwrap();
            std::fs::write(folder.path().join("file"), b"data").unwrap();
            assert_eq!(folder.path().starts_with(MEMORY), has_room(Path::new(MEMORY)));
            folder.path().to_owned()
        };
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_there_has_no_room() {
        assert!(!has_room(Path::new("/there/is/no/such/folder")));
    }
}
