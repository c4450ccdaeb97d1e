//! Event files of TensorBoard: records of protocol buffers, each with checksums.
//!
//! A record (tensorflow/core/lib/io/record_writer.h) is the length of its data (8 bytes, little
//! endian), the masked CRC-32C of these 8 bytes, the data, and their masked CRC-32C. The data are an
//! `Event` (tensorflow/core/util/event.proto), of which few fields are needed.

/// What an event file begins with: its version and, where a run goes on, that whatever came after
/// `step` is to be forgotten.
pub(super) fn beginning(now: f64, step: u64) -> Vec<u8> {
    let version = event(now, 0, field(3, b"brain.Event:2"));
    let mut records = record(&version);
    if step > 0 {
        const START: u64 = 1;
        let mut session = Vec::new();
        put_varint(&mut session, key(1, VARINT));
        put_varint(&mut session, START);
        // The first step that comes anew.
        records.extend(record(&event(now, step + 1, field(7, &session))));
    }
    records
}

/// Numbers of a step.
pub(super) fn scalars(now: f64, step: u64, numbers: &[(String, f64)]) -> Vec<u8> {
    let value = |(name, number): &(String, f64)| {
        let mut value = field(1, name.as_bytes());
        put_varint(&mut value, key(2, FIXED_32));
        value.extend((*number as f32).to_le_bytes());
        field(1, &value)
    };
    let summary: Vec<u8> = numbers.iter().flat_map(value).collect();
    record(&event(now, step, field(5, &summary)))
}

/// How a field of a protocol buffer is written.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

fn event(now: f64, step: u64, what: Vec<u8>) -> Vec<u8> {
    let mut event = Vec::new();
    put_varint(&mut event, key(1, FIXED_64));
    event.extend(now.to_le_bytes());
    put_varint(&mut event, key(2, VARINT));
    put_varint(&mut event, step);
    event.extend(what);
    event
}

fn key(number: u64, wire: u64) -> u64 {
    number << 3 | wire
}

/// A field of bytes: a text or another message.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    put_varint(&mut field, key(number, BYTES));
    put_varint(&mut field, bytes.len() as u64);
    field.extend(bytes);
    field
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(data);
    record.extend(masked(crc32c(data)).to_le_bytes());
    record
}

/// A checksum of data that hold checksums: turned, and moved by a constant.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's cyclic redundancy check, bit by bit: some hundred bytes a step.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let crc = bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (REVERSED_POLYNOMIAL * (crc & 1))
        })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        // RFC 3720 (iSCSI), B.4, and the catalogue of CRCs' check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn numbers_are_written_as_protocol_buffers_are() {
        // By hand, after the encoding's documentation: 300 is ac 02.
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
        let record = scalars(1.0, 300, &[("a".to_owned(), 0.5)]);
        let data = [
            &[0x09][..], // field 1, 64 bits
            &1.0_f64.to_le_bytes(),
            &[0x10, 0xac, 0x02],             // field 2, 300
            &[0x2a, 10],                     // field 5, 10 bytes
            &[0x0a, 8],                      // field 1, 8 bytes
            &[0x0a, 1, b'a'],                // field 1, a text
            &[0x15, 0x00, 0x00, 0x00, 0x3f], // field 2, 32 bits
        ]
        .concat();
        assert_eq!(record[..8], (data.len() as u64).to_le_bytes());
        assert_eq!(record[12..12 + data.len()], data);
        assert_eq!(record.len(), 16 + data.len());
    }
}
