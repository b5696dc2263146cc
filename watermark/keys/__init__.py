"""Keys: secret ones and their derivation, those of other systems, where they are kept, and which marks a token."""

from watermark.keys.foreign import ForeignKey
from watermark.keys.secret import (
    KEY_BYTES,
    AnyKey,
    KeyRing,
    MarkingKey,
    Purpose,
    SecretKey,
    TenantKey,
    check_tenant_name,
)
from watermark.keys.sources import (
    format_key,
    load_key,
    load_master,
    load_owner_key,
    parse_key,
    read_source,
    source_path,
    write_key_file,
)

__all__ = [
    "KEY_BYTES",
    "AnyKey",
    "ForeignKey",
    "KeyRing",
    "MarkingKey",
    "Purpose",
    "SecretKey",
    "TenantKey",
    "check_tenant_name",
    "format_key",
    "load_key",
    "load_master",
    "load_owner_key",
    "parse_key",
    "read_source",
    "source_path",
    "write_key_file",
]
