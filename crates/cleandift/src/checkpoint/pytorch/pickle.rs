//! Pickles as data. The format is a program for a stack machine that may call any function of
//! Python; here a call is a note of who would be called with what, and only for the few functions
//! that checkpoints are made of.
//!
//! The opcodes are those that `torch.save` writes (protocol 2), and protocol 4's forms of the same.
//! Objects live in one list and refer to each other by index, so that neither deep nesting nor
//! objects that hold themselves nor memo bombs cost more than the bytes that spell them.
//! Source: Python's `pickletools`.

use std::collections::HashMap;

/// More objects than any checkpoint has (Stable Diffusion with all its averages: some 40,000).
const MOST_OBJECTS: usize = 1_000_000;

/// What may be called. The first ones have a meaning; of the others, which trainers leave behind
/// beside the weights, nothing is kept.
const CALLABLE: [(&str, &str); 14] = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("__builtin__", "set"),
    ("builtins", "set"),
];

/// A pickle that is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    #[error("it ends within an instruction, at byte {0}")]
    Truncated(usize),
    #[error("byte {at}: instruction {opcode:#04x} has no place in a checkpoint")]
    Opcode { at: usize, opcode: u8 },
    #[error("byte {at}: {reason}")]
    Invalid { at: usize, reason: &'static str },
    #[error("it would call `{module}.{name}`, which loading weights never needs: nothing was run")]
    Call { module: String, name: String },
}

/// The place of an object in its pickle.
pub(super) type Id = u32;

/// A value of the pickle; texts lie in the pickle's bytes.
#[derive(Debug, PartialEq)]
pub(super) enum Object<'p> {
    Int(i64),
    Text(&'p str),
    /// A class or function, by name.
    Global {
        module: &'p str,
        name: &'p str,
    },
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What a function would have made.
    Call {
        name: &'p str,
        arguments: Id,
    },
    /// Something that the file keeps outside the pickle: a storage.
    Persistent(Id),
    /// A whole number too large for a size: the file's magic number, for one.
    Long(&'p [u8]),
    /// A value that no tensor is made of.
    Other,
}

/// A pickle, read.
pub(super) struct Pickle<'p> {
    objects: Vec<Object<'p>>,
    root: Id,
    /// Bytes that it took.
    pub(super) len: usize,
}

impl<'p> Pickle<'p> {
    /// Reads the pickle that `bytes` begin with.
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        let root = loop {
            if let Some(root) = machine.step()? {
                break root;
            }
        };
        Ok(Self {
            objects: machine.objects,
            root,
            len: machine.at,
        })
    }

    /// What the pickle is of.
    pub(super) fn root(&self) -> &Object<'p> {
        self.get(self.root)
    }

    /// Everything that the pickle made on its way.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object<'p>> {
        self.objects.iter()
    }

    pub(super) fn get(&self, id: Id) -> &Object<'p> {
        self.objects.get(id as usize).unwrap_or(&Object::Other)
    }
}

struct Machine<'p> {
    bytes: &'p [u8],
    at: usize,
    /// Where the current instruction began, for errors.
    began: usize,
    objects: Vec<Object<'p>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Entries of lists that became entries of dictionaries.
    copied: usize,
}

impl<'p> Machine<'p> {
    fn new(bytes: &'p [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            began: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Follows one instruction; the result, if it was the last one.
    fn step(&mut self) -> Result<Option<Id>, PickleError> {
        self.began = self.at;
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?), // FRAME: a hint for buffers
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_marked()?),
            b'2' => {
                let top = self.pop()?;
                self.push_id(top)?;
                self.push_id(top)?;
            }
            b'q' | b'r' | 0x94 => self.memoize(opcode)?,
            b'h' | b'j' => self.recall(opcode)?,
            b'N' | 0x88 | 0x89 => self.push(Object::Other)?,
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(opcode)?,
            b'G' => {
                self.take(8)?;
                self.push(Object::Other)?;
            }
            b'U' | b'T' | b'X' | 0x8c | 0x8d | b'C' | b'B' | 0x8e => self.text(opcode)?,
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode)?,
            b']' => self.push(Object::List(Vec::new()))?,
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b'l' => {
                let items = self.pop_marked()?;
                self.push(Object::List(items))?;
            }
            b'd' => {
                let items = self.pop_marked()?;
                let entries = self.pairs(&items)?;
                self.push(Object::Dict(entries))?;
            }
            b'a' | b'e' => self.append(opcode)?,
            b's' | b'u' => self.set_items(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'R' | 0x81 => self.call()?,
            // The state of an object: of the objects that are kept, none has one that counts.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            opcode => {
                let at = self.began;
                return Err(PickleError::Opcode { at, opcode });
            }
        }
        Ok(None)
    }

    fn invalid(&self, reason: &'static str) -> PickleError {
        let at = self.began;
        PickleError::Invalid { at, reason }
    }

    fn take(&mut self, count: usize) -> Result<&'p [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest
            .get(..count)
            .ok_or(PickleError::Truncated(self.began))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        let taken = self.take(1)?;
        taken
            .first()
            .copied()
            .ok_or(PickleError::Truncated(self.began))
    }

    /// An unsigned number of so many bytes, little endian.
    fn number(&mut self, bytes: usize) -> Result<u64, PickleError> {
        let taken = self.take(bytes)?;
        Ok(taken
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// As many bytes as a length of so many bytes says.
    fn counted(&mut self, length_bytes: usize) -> Result<&'p [u8], PickleError> {
        let length = self.number(length_bytes)?;
        let length = usize::try_from(length).map_err(|_| PickleError::Truncated(self.began))?;
        self.take(length)
    }

    fn line(&mut self) -> Result<&'p str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or(PickleError::Truncated(self.began))?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.invalid("a name is not UTF-8"))
    }

    fn push(&mut self, object: Object<'p>) -> Result<(), PickleError> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(self.invalid("it has more than a million objects"));
        }
        let id = self.objects.len() as Id;
        self.objects.push(object);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        if self.stack.len() >= MOST_OBJECTS {
            return Err(self.invalid("its stack is deeper than a million"));
        }
        self.stack.push(id);
        Ok(())
    }

    /// The top of the stack, which must lie above the last mark.
    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop(),
            false => None,
        }
        .ok_or_else(|| self.invalid("its stack is empty"))
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        if self.marks.len() >= MOST_OBJECTS {
            return Err(self.invalid("it has more than a million open marks"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_marked(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| self.invalid("there is no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.byte()? {
            2..=5 => Ok(()),
            _ => Err(self.invalid("its protocol is not 2 to 5")),
        }
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        if self.memo.len() >= MOST_OBJECTS {
            return Err(self.invalid("its memo has more than a million entries"));
        }
        let top = self.pop()?;
        self.memo.insert(key, top);
        self.push_id(top)
    }

    fn recall(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
        let known = self.memo.get(&key).copied();
        let id = known.ok_or_else(|| self.invalid("it recalls what it has not memoized"))?;
        self.push_id(id)
    }

    fn integer(&mut self, opcode: u8) -> Result<(), PickleError> {
        let object = match opcode {
            b'K' => Object::Int(self.number(1)? as i64),
            b'M' => Object::Int(self.number(2)? as i64),
            b'J' => Object::Int(i64::from(self.number(4)? as u32 as i32)),
            long => {
                let bytes = self.counted(if long == 0x8a { 1 } else { 4 })?;
                signed(bytes).map_or(Object::Long(bytes), Object::Int)
            }
        };
        self.push(object)
    }

    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let bytes = self.counted(match opcode {
            b'U' | b'C' | 0x8c => 1,
            b'T' | b'X' | b'B' => 4,
            _ => 8,
        })?;
        let object = match (opcode, std::str::from_utf8(bytes)) {
            (b'C' | b'B' | 0x8e, _) => Object::Other,
            (_, Ok(text)) => Object::Text(text),
            // Python 2's strings are bytes; what is no text names no tensor.
            (b'U' | b'T', Err(_)) => Object::Other,
            (_, Err(_)) => return Err(self.invalid("a text is not UTF-8")),
        };
        self.push(object)
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_marked()?,
            sized => {
                let count = usize::from(sized - 0x84);
                let mut items = (0..count)
                    .map(|_| self.pop())
                    .collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                items
            }
        };
        self.push(Object::Tuple(items))
    }

    /// The object on top of the stack, to be changed in its place: the memo may know it already.
    fn top(&mut self) -> Result<&mut Object<'p>, PickleError> {
        let top = self.pop()?;
        self.push_id(top)?;
        let empty = self.invalid("its stack is empty");
        self.objects.get_mut(top as usize).ok_or(empty)
    }

    fn append(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            _ => self.pop_marked()?,
        };
        let error = self.invalid("it appends to what is no list");
        match self.top()? {
            Object::List(list) => list.extend(items),
            Object::Other | Object::Call { .. } => {}
            _ => return Err(error),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_marked()?,
        };
        let pairs = self.pairs(&items)?;
        let error = self.invalid("it sets items of what is no dictionary");
        match self.top()? {
            Object::Dict(entries) => entries.extend(pairs),
            Object::Other | Object::Call { .. } => {}
            _ => return Err(error),
        }
        Ok(())
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.invalid("a key has no value")),
        }
    }

    fn global(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            return self.push(Object::Global { module, name });
        }
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.object(module), self.object(name)) {
            (Some(&Object::Text(module)), Some(&Object::Text(name))) => {
                self.push(Object::Global { module, name })
            }
            _ => Err(self.invalid("a class has no name")),
        }
    }

    fn object(&self, id: Id) -> Option<&Object<'p>> {
        self.objects.get(id as usize)
    }

    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (module, name) = match self.object(callee) {
            Some(&Object::Global { module, name }) => (module, name),
            _ => return Err(self.invalid("it calls what is no function")),
        };
        if !CALLABLE.contains(&(module, name)) {
            let (module, name) = (module.into(), name.into());
            return Err(PickleError::Call { module, name });
        }
        let made = match (module, name) {
            ("collections", _) => Object::Dict(self.ordered(arguments)?),
            ("torch._utils", _) => Object::Call { name, arguments },
            _ => Object::Other,
        };
        self.push(made)
    }

    /// The entries that an ordered dictionary begins with: none, or Python 2's list of pairs.
    fn ordered(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let error = self.invalid("an OrderedDict is made of what are no pairs");
        let items = match self.items(arguments) {
            Some([]) => return Ok(Vec::new()),
            Some(&[list]) => self.items(list),
            _ => None,
        };
        let pair = |&item: &Id| match self.items(item) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        let pairs = items.and_then(|items| items.iter().map(pair).collect::<Option<Vec<_>>>());
        let pairs = pairs.ok_or(error)?;
        // A few bytes may ask for a copy of a long list, again and again.
        self.copied = self.copied.saturating_add(pairs.len());
        match self.copied <= MOST_OBJECTS {
            true => Ok(pairs),
            false => Err(self.invalid("it copies more than a million entries")),
        }
    }

    fn items(&self, id: Id) -> Option<&[Id]> {
        match self.object(id)? {
            Object::List(items) | Object::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

/// A number in two's complement, little endian, if 64 bits hold it.
fn signed(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
        Pickle::read(bytes)
    }

    /// `pickle.dumps({"a": (1, -2, 2**40)}, 2)` of Python 3.11.
    #[test]
    fn a_dictionary_of_python() {
        let bytes = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xff\
                      \x8a\x06\x00\x00\x00\x00\x00\x01\x87q\x02s.rest";
        let pickle = read(bytes).unwrap();
        assert_eq!(pickle.len, bytes.len() - 4);
        let Object::Dict(entries) = pickle.root() else {
            panic!("no dictionary")
        };
        let [(key, value)] = entries[..] else {
            panic!("{entries:?}")
        };
        assert_eq!(pickle.get(key), &Object::Text("a"));
        let Object::Tuple(items) = pickle.get(value) else {
            panic!("no tuple")
        };
        let items: Vec<_> = items.iter().map(|&id| pickle.get(id)).collect();
        let expected = [Object::Int(1), Object::Int(-2), Object::Int(1 << 40)];
        assert_eq!(items, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_call_is_refused_by_name() {
        let error = read(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.").err();
        let (module, name) = ("posix".into(), "system".into());
        assert_eq!(error, Some(PickleError::Call { module, name }));
        // Its name alone is data.
        assert!(read(b"\x80\x02cposix\nsystem\n.").is_ok());
    }

    #[test]
    fn a_dictionary_in_itself_takes_no_room() {
        let pickle = read(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.").unwrap();
        assert!(matches!(pickle.root(), Object::Dict(entries) if entries.len() == 1));
    }
}
