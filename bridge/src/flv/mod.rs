//! FLV: tags and files.
