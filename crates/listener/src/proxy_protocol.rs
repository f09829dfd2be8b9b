//! The PROXY protocol, versions 1 and 2, as specified by HAProxy in 2020.

use std::{io, net::IpAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The reason why the PROXY protocol header of a connection was rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("no PROXY protocol header")]
    Missing,
    #[error("malformed PROXY protocol header")]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The first bytes of every version 2 header.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of every version 1 header, which is one line of text.
const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest header of version 1, with its CR LF.
const MAX_V1_BYTES: usize = 107;
/// The longest part of a version 2 header after its first 16 bytes. Addresses take at most 216 bytes; the
/// rest are fields that are ignored.
const MAX_V2_BYTES: usize = 4 * 1024;

/// Reads the header from the front of `stream` and nothing after it. `None`: the proxy opened the connection
/// itself (a health check), or does not know the address.
pub(crate) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<IpAddr>, HeaderError> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        header.resize(16, 0);
        stream.read_exact(&mut header[12..]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > MAX_V2_BYTES {
            return Err(HeaderError::Malformed);
        }
        header.resize(16 + length, 0);
        stream.read_exact(&mut header[16..]).await?;
    } else if header.starts_with(V1_PREFIX) {
        // Byte by byte, so that no byte of the request after the line is consumed.
        while !header.ends_with(b"\r\n") {
            if header.len() == MAX_V1_BYTES {
                return Err(HeaderError::Malformed);
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(HeaderError::Missing);
    }
    source(&header)
}

fn source(header: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    let source = match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
            v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
            (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
            _ => None,
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(HeaderError::Malformed),
    };
    Ok(source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read(bytes: &[u8]) -> (Result<Option<IpAddr>, HeaderError>, Vec<u8>) {
        let mut stream = bytes;
        let header = read_header(&mut stream).await;
        (header, stream.to_vec())
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[0x20 | command, family], &length, addresses, b"GET /"].concat()
    }

    #[tokio::test]
    async fn version_1_names_the_source_and_leaves_the_request() {
        let (header, rest) = read(b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\nGET /").await;
        assert_eq!(header.unwrap(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(rest, b"GET /");
        let (header, rest) = read(b"PROXY TCP6 2001:db8::1 fd00::1 5000 80\r\n\r\n").await;
        assert_eq!(header.unwrap(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(rest, b"\r\n");
        assert_eq!(read(b"PROXY UNKNOWN\r\nGET /").await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn version_2_names_the_source_and_leaves_the_request() {
        let addresses = [192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0, 80];
        let (header, rest) = read(&v2(1, 0x11, &addresses)).await;
        assert_eq!(header.unwrap(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(rest, b"GET /");
        // With a field after the addresses.
        let with_field = [&addresses[..], &[0x04, 0, 1, 7]].concat();
        assert_eq!(read(&v2(1, 0x11, &with_field)).await.0.unwrap(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(read(&v2(0, 0x00, &[])).await.0.unwrap(), None, "LOCAL");
    }

    #[tokio::test]
    async fn bytes_without_a_valid_header_are_rejected() {
        for missing in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n"] {
            assert!(matches!(read(missing).await.0, Err(HeaderError::Missing)));
        }
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let short = v2(1, 0x11, &[192, 0, 2, 1]);
        let huge = [&V2_SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for malformed in [&endless[..], b"PROXY TCP4 here there 1 2\r\n", &short, &huge] {
            assert!(matches!(read(malformed).await.0, Err(HeaderError::Malformed)), "{malformed:?}");
        }
        assert!(matches!(read(b"PROXY").await.0, Err(HeaderError::Io(_))), "the connection ended");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(signature in 0usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let start: &[u8] = [&b""[..], V2_SIGNATURE, b"PROXY TCP4 "][signature];
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&[start, &bytes].concat()));
        }
    }
}
