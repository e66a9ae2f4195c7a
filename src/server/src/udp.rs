//! UDP for media: one port on several sockets, datagrams in batches, segmentation offload both ways.
//!
//! The only module with `unsafe`. The kernel interfaces are those of `recvmmsg(2)`, `sendmmsg(2)`, `udp(7)`
//! (`UDP_SEGMENT`, `UDP_GRO`), `ip(7)` (`IP_PKTINFO`), `ipv6(7)` (`IPV6_RECVPKTINFO`) and `poll(2)`. Every pointer that
//! is handed to the kernel points into a vector that is neither moved nor freed during the call.
//!
//! It knows nothing of what is in a datagram. There is no waiting for more: what is there is taken.

#![expect(unsafe_code, reason = "recvmmsg, sendmmsg, poll and control messages have no safe interface in std")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freshet_sfu::{Message, Path, Protocol, SendBatch};
use libc::{c_int, c_void, cmsghdr, in6_pktinfo, iovec, mmsghdr, sockaddr_in6, sockaddr_storage};
use socket2::{Domain, Socket, Type};

/// Messages of one `recvmmsg`; the gain flattens here.
const RECV_MESSAGES: usize = 16;
/// The kernel joins at most this much into one message (`UDP_GRO`).
const RECV_BYTES: usize = 64 * 1024;
/// Messages of one `sendmmsg`.
const SEND_MESSAGES: usize = 64;
/// Control messages of one datagram: packet info and segment size, with room to spare.
const CONTROL_BYTES: usize = 128;
/// Asked of the kernel for a burst of a keyframe to a thousand viewers; it may give less (`net.core.wmem_max`).
const SOCKET_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Not in every libc's headers: `include/uapi/linux/udp.h`.
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;

/// Control messages have to be aligned for their header.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// One socket of the media port.
#[derive(Debug)]
pub(crate) struct MediaSocket {
    socket: UdpSocket,
    v6: bool,
    /// Segmentation offload works, as far as is known.
    offload: AtomicBool,
}

/// Opens `count` sockets on one port; the kernel spreads flows over them by their addresses. Their number never
/// changes afterwards: that would move flows.
///
/// # Errors
/// The address is in use or not ours.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<MediaSocket>> {
    let first = match MediaSocket::open(address) {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            // A host without IPv6.
            MediaSocket::open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))?
        }
        other => other?,
    };
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(MediaSocket::open(bound)?);
    }
    Ok(sockets)
}

impl MediaSocket {
    fn open(address: SocketAddr) -> io::Result<MediaSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        let v6 = address.is_ipv6();
        if v6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            // The forced form needs CAP_NET_ADMIN; the plain one is cut down to the system's limit.
            let bytes = SOCKET_BUFFER_BYTES as c_int;
            set_option(fd, libc::SOL_SOCKET, force, bytes)
                .or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, bytes))?;
        }
        if v6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        } else {
            set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        // Both are optional: kernels before 4.18 and 5.0 do without.
        let offload = set_option(fd, libc::SOL_UDP, UDP_SEGMENT, 0).is_ok();
        let _ = set_option(fd, libc::SOL_UDP, UDP_GRO, 1);
        socket.bind(&address.into())?;
        Ok(MediaSocket { socket: socket.into(), v6, offload: AtomicBool::new(offload) })
    }

    /// The address that the socket got.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether several datagrams leave in one message.
    pub(crate) fn has_offload(&self) -> bool {
        self.offload.load(Ordering::Relaxed)
    }

    /// From here on every datagram is a message of its own.
    pub(crate) fn give_up_offload(&self) {
        self.offload.store(false, Ordering::Relaxed);
    }

    /// Waits until a datagram is there, `wake` is readable, or the time is over.
    pub(crate) fn wait(&self, wake: BorrowedFd<'_>, timeout: Duration) {
        let mut fds =
            [self.socket.as_raw_fd(), wake.as_raw_fd()].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: both pointers are to live values of this frame, the count is the array's.
        // An error (a signal) is as good as a wake-up.
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &timeout, std::ptr::null()) };
    }

    /// Takes what has arrived, at most one system call's worth, and gives each datagram to `each`. Returns how many
    /// messages there were; fewer than [`RecvBuffers::capacity`] means that the socket is empty.
    pub(crate) fn receive(&self, buffers: &mut RecvBuffers, mut each: impl FnMut(Path, &[u8])) -> usize {
        let count = buffers.call(self.socket.as_raw_fd());
        for i in 0..count {
            let Some((path, bytes, segment)) = buffers.message(i) else { continue };
            for datagram in bytes.chunks(segment.max(1)) {
                each(path, datagram);
            }
        }
        count
    }

    /// Sends all UDP messages of a batch.
    pub(crate) fn send(&self, batch: &SendBatch, buffers: &mut SendBuffers) -> SendReport {
        let mut report = SendReport::default();
        let udp: &mut Vec<Message> = &mut buffers.pending;
        udp.clear();
        for message in batch.messages().iter().filter(|m| m.path.protocol == Protocol::Udp) {
            self.push(udp, *message);
        }
        let mut at = 0;
        while at < buffers.pending.len() {
            let end = buffers.pending.len().min(at + SEND_MESSAGES);
            report.calls += 1;
            match buffers.call(self.socket.as_raw_fd(), batch, at, end, self.v6) {
                Ok(sent) => at += sent.max(1),
                Err(error) => {
                    let message = buffers.pending[at];
                    match error.raw_os_error() {
                        // No offload on this path: split from here on, and this message once more.
                        Some(libc::EIO | libc::EMSGSIZE | libc::EINVAL) if message.segments() > 1 => {
                            self.give_up_offload();
                            let rest: Vec<Message> = buffers.pending.split_off(at);
                            rest.into_iter().for_each(|m| self.push(&mut buffers.pending, m));
                        }
                        Some(libc::EAGAIN | libc::ENOBUFS) => {
                            let rest = &buffers.pending[at..];
                            report.dropped += rest.iter().map(|m| m.segments() as u64).sum::<u64>();
                            report.no_room = rest.iter().map(|m| m.path).collect();
                            return report;
                        }
                        // Unreachable, refused, filtered: this peer's affair.
                        _ => {
                            report.dropped += message.segments() as u64;
                            at += 1;
                        }
                    }
                }
            }
        }
        report
    }

    fn push(&self, messages: &mut Vec<Message>, message: Message) {
        if message.segments() == 1 || self.has_offload() {
            messages.push(message);
            return;
        }
        let (mut start, end) = (message.start, message.start + message.bytes);
        while start < end {
            let bytes = message.segment_bytes.min(end - start);
            messages.push(Message { start, bytes, segment_bytes: bytes, ..message });
            start += bytes;
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SendReport {
    /// System calls.
    pub(crate) calls: u64,
    /// Datagrams that did not leave.
    pub(crate) dropped: u64,
    /// Peers for whom the socket had no room.
    pub(crate) no_room: Vec<Path>,
}

fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value lives until the call returns and has the length that is given.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast::<c_void>(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Memory for received messages, used again and again.
pub(crate) struct RecvBuffers {
    bytes: Vec<u8>,
    names: Vec<sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

// SAFETY: the raw pointers in `iovecs` and `headers` are set anew before each call and point into the struct's own
// vectors; nothing else holds them.
unsafe impl Send for RecvBuffers {}

impl RecvBuffers {
    pub(crate) fn new() -> RecvBuffers {
        // SAFETY: all of these are plain C structs for which zero is a valid value.
        let (name, header) = unsafe { (zeroed::<sockaddr_storage>(), zeroed::<mmsghdr>()) };
        RecvBuffers {
            bytes: vec![0; RECV_MESSAGES * RECV_BYTES],
            names: vec![name; RECV_MESSAGES],
            controls: vec![Control([0; CONTROL_BYTES]); RECV_MESSAGES],
            iovecs: vec![iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; RECV_MESSAGES],
            headers: vec![header; RECV_MESSAGES],
        }
    }

    /// Most messages of one call.
    pub(crate) fn capacity(&self) -> usize {
        RECV_MESSAGES
    }

    fn call(&mut self, fd: c_int) -> usize {
        for (i, buffer) in self.bytes.chunks_mut(RECV_BYTES).enumerate() {
            self.iovecs[i] = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: RECV_BYTES };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to buffers of the stated lengths, owned by `self` and untouched until the return.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                RECV_MESSAGES as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).unwrap_or(0)
    }

    /// Path, bytes and segment size of a message of the last call.
    fn message(&self, i: usize) -> Option<(Path, &[u8], usize)> {
        let header = &self.headers[i];
        let length = header.msg_len as usize;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || length > RECV_BYTES {
            return None;
        }
        let bytes = &self.bytes[i * RECV_BYTES..i * RECV_BYTES + length];
        let remote = read_address(&self.names[i])?;
        let (mut local, mut segment) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), length);
        // SAFETY: the kernel has filled `msg_controllen` bytes of an aligned buffer with well-formed control messages;
        // the macros stay within that length, and each payload is read only as the type its level and kind have.
        unsafe {
            let mut cmsg = libc::CMSG_FIRSTHDR(&header.msg_hdr);
            while let Some(c) = cmsg.as_ref() {
                let data = libc::CMSG_DATA(cmsg);
                match (c.cmsg_level, c.cmsg_type) {
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<in6_pktinfo>().read_unaligned();
                        local = IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical();
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        local = IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                    }
                    (libc::SOL_UDP, UDP_GRO) => {
                        segment = usize::try_from(data.cast::<c_int>().read_unaligned()).unwrap_or(length);
                    }
                    _ => {}
                }
                cmsg = libc::CMSG_NXTHDR(&header.msg_hdr, cmsg);
            }
        }
        Some((Path { protocol: Protocol::Udp, remote, local }, bytes, segment))
    }
}

fn read_address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let pointer = (&raw const *storage).cast::<c_void>();
    // SAFETY: the kernel wrote an address of the stated family; `sockaddr_storage` is large and aligned enough for both.
    let address = unsafe {
        match c_int::from(storage.ss_family) {
            libc::AF_INET => {
                let a = pointer.cast::<libc::sockaddr_in>().read();
                SocketAddr::from((Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)), u16::from_be(a.sin_port)))
            }
            libc::AF_INET6 => {
                let a = pointer.cast::<sockaddr_in6>().read();
                let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                let port = u16::from_be(a.sin6_port);
                match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddr::from((v4, port)),
                    None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, a.sin6_scope_id)),
                }
            }
            _ => return None,
        }
    };
    Some(address)
}

/// Memory for messages to send, used again and again.
pub(crate) struct SendBuffers {
    pending: Vec<Message>,
    names: Vec<sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

// SAFETY: as for `RecvBuffers`.
unsafe impl Send for SendBuffers {}

impl SendBuffers {
    pub(crate) fn new() -> SendBuffers {
        // SAFETY: plain C structs for which zero is a valid value.
        let (name, header) = unsafe { (zeroed::<sockaddr_storage>(), zeroed::<mmsghdr>()) };
        SendBuffers {
            pending: Vec::new(),
            names: vec![name; SEND_MESSAGES],
            controls: vec![Control([0; CONTROL_BYTES]); SEND_MESSAGES],
            iovecs: vec![iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEND_MESSAGES],
            headers: vec![header; SEND_MESSAGES],
        }
    }

    /// Sends `pending[at..end]` and returns how many messages left.
    fn call(&mut self, fd: c_int, batch: &SendBatch, at: usize, end: usize, v6: bool) -> io::Result<usize> {
        for (i, message) in self.pending[at..end].iter().enumerate() {
            let bytes = batch.bytes(message);
            // The kernel only reads through this pointer.
            self.iovecs[i] = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let name_length = write_address(&mut self.names[i], message.path.remote, v6);
            let segment = if message.segments() > 1 { message.segment_bytes as u16 } else { 0 };
            let control_length = write_control(&mut self.controls[i], message.path.local, segment, v6);
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = name_length;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = control_length as _;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to memory of the stated length that `self` and `batch` own until the return.
        let sent = unsafe {
            libc::sendmmsg(
                fd,
                self.headers.as_mut_ptr(),
                (end - at) as u32,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Writes an address in the socket's family and returns its length.
fn write_address(storage: &mut sockaddr_storage, address: SocketAddr, v6: bool) -> libc::socklen_t {
    let pointer = (&raw mut *storage).cast::<c_void>();
    // SAFETY: both structs fit into `sockaddr_storage`, which is aligned for them; zero is a valid value of both.
    unsafe {
        match (address.ip(), v6) {
            (IpAddr::V4(ip), false) => {
                let mut a: libc::sockaddr_in = zeroed();
                a.sin_family = libc::AF_INET as _;
                a.sin_port = address.port().to_be();
                a.sin_addr.s_addr = u32::from(ip).to_be();
                pointer.cast::<libc::sockaddr_in>().write(a);
                size_of::<libc::sockaddr_in>() as _
            }
            (ip, _) => {
                let mut a: sockaddr_in6 = zeroed();
                a.sin6_family = libc::AF_INET6 as _;
                a.sin6_port = address.port().to_be();
                a.sin6_addr.s6_addr = mapped(ip).octets();
                if let SocketAddr::V6(v6) = address {
                    a.sin6_scope_id = v6.scope_id();
                }
                pointer.cast::<sockaddr_in6>().write(a);
                size_of::<sockaddr_in6>() as _
            }
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Writes the source address and the segment size, and returns the length of both.
fn write_control(control: &mut Control, source: IpAddr, segment: u16, v6: bool) -> usize {
    let mut length = 0;
    if !source.is_unspecified() {
        // SAFETY: zero is a valid value of both structs.
        match (source, v6) {
            (IpAddr::V4(ip), false) => {
                let mut info: libc::in_pktinfo = unsafe { zeroed() };
                info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                length += append(control, length, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            (ip, _) => {
                let mut info: in6_pktinfo = unsafe { zeroed() };
                info.ipi6_addr.s6_addr = mapped(ip).octets();
                length += append(control, length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }
    if segment > 0 {
        length += append(control, length, libc::SOL_UDP, UDP_SEGMENT, segment);
    }
    length
}

/// Appends one control message at `at`, which is aligned, and returns the space that it takes.
fn append<T>(control: &mut Control, at: usize, level: c_int, kind: c_int, value: T) -> usize {
    // SAFETY: these only compute lengths.
    let (space, length) = unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32), libc::CMSG_LEN(size_of::<T>() as u32)) };
    assert!(at + space as usize <= CONTROL_BYTES, "control messages fit by construction");
    let header = control.0[at..].as_mut_ptr().cast::<cmsghdr>();
    // SAFETY: header and value lie within the buffer (checked above); `at` is a multiple of the alignment because all
    // spaces are, and the buffer is aligned to 8. `CMSG_DATA` is the position right behind the header.
    unsafe {
        let mut h: cmsghdr = zeroed();
        h.cmsg_len = length as _;
        h.cmsg_level = level;
        h.cmsg_type = kind;
        header.write(h);
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    space as usize
}

/// Lets this process open as many files as the system allows, for connections over TCP.
pub(crate) fn raise_open_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live struct of the right type; failing leaves the limit as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Processor time that the calling thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live struct of the right type; a failure, which Linux does not have, leaves it zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use freshet_sfu::SendBatch;

    use super::*;

    /// Sends `sizes` to `to` through a batch and returns what the report says.
    fn send(socket: &MediaSocket, to: SocketAddr, from: IpAddr, sizes: &[usize]) -> SendReport {
        let mut batch = SendBatch::default();
        let path = Path { protocol: Protocol::Udp, remote: to, local: from };
        for (i, size) in sizes.iter().enumerate() {
            batch.push(path, &vec![i as u8; *size]);
        }
        socket.send(&batch, &mut SendBuffers::new())
    }

    fn received(socket: &UdpSocket, count: usize) -> Vec<(usize, u8, SocketAddr)> {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buffer = [0; 2048];
        let mut next = || {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            (length, buffer[0], from)
        };
        (0..count).map(|_| next()).collect()
    }

    fn any_port(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 0)
    }

    #[test]
    fn datagrams_of_one_peer_leave_together_and_arrive_apart() {
        let socket = &bind(any_port("127.0.0.1"), 1).unwrap()[0];
        let peer = UdpSocket::bind(any_port("127.0.0.1")).unwrap();
        let sizes = [1000, 1000, 1000, 400, 700];
        let report = send(socket, peer.local_addr().unwrap(), "127.0.0.1".parse().unwrap(), &sizes);
        assert_eq!(report, SendReport { calls: 1, ..SendReport::default() });
        let arrived: Vec<_> = received(&peer, 5).iter().map(|(length, first, _)| (*length, *first)).collect();
        assert_eq!(arrived, [(1000, 0), (1000, 1), (1000, 2), (400, 3), (700, 4)]);
    }

    #[test]
    fn without_offload_the_same_datagrams_arrive() {
        let socket = &bind(any_port("127.0.0.1"), 1).unwrap()[0];
        socket.give_up_offload();
        let peer = UdpSocket::bind(any_port("127.0.0.1")).unwrap();
        send(socket, peer.local_addr().unwrap(), "127.0.0.1".parse().unwrap(), &[100, 100, 50]);
        assert_eq!(received(&peer, 3).iter().map(|r| r.0).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        let socket = &bind(any_port("0.0.0.0"), 1).unwrap()[0];
        let port = socket.local_addr().unwrap().port();
        let peer = UdpSocket::bind(any_port("127.0.0.1")).unwrap();
        for asked in ["127.0.0.2", "127.0.0.3"] {
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            peer.send_to(b"check", asked).unwrap();
            let path = receive_one(socket);
            assert_eq!((path.local, path.remote), (asked.ip(), peer.local_addr().unwrap()));
            send(socket, path.remote, path.local, &[10]);
            assert_eq!(received(&peer, 1)[0].2, asked);
        }
    }

    #[test]
    fn one_socket_serves_both_families() {
        let Ok(sockets) = bind(any_port("::"), 2) else { panic!("cannot bind") };
        let bound = sockets[0].local_addr().unwrap();
        assert_eq!(sockets[1].local_addr().unwrap(), bound, "both share the port");
        drop(sockets);
        let socket = &bind(any_port("::"), 1).unwrap()[0];
        let port = socket.local_addr().unwrap().port();
        let families = if socket.v6 { vec!["127.0.0.1", "::1"] } else { vec!["127.0.0.1"] };
        for ip in families {
            let peer = UdpSocket::bind(any_port(ip)).unwrap();
            let asked = SocketAddr::new(ip.parse().unwrap(), port);
            peer.send_to(b"check", asked).unwrap();
            let path = receive_one(socket);
            assert_eq!((path.local, path.remote), (asked.ip(), peer.local_addr().unwrap()));
            send(socket, path.remote, path.local, &[30, 30, 20]);
            assert!(received(&peer, 3).iter().all(|r| r.2 == asked));
        }
    }

    fn receive_one(socket: &MediaSocket) -> Path {
        let (idle, _keep) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut paths = Vec::new();
        let mut buffers = RecvBuffers::new();
        for _ in 0..20 {
            socket.wait(std::os::fd::AsFd::as_fd(&idle), Duration::from_millis(100));
            socket.receive(&mut buffers, |path, _| paths.push(path));
            if let Some(path) = paths.pop() {
                return path;
            }
        }
        panic!("nothing arrived");
    }
}
