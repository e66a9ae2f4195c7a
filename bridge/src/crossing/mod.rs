//! From the frame plane to the packet plane.
