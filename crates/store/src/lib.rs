//! Content-addressed blobs with a size limit, and files written whole or not at all.
