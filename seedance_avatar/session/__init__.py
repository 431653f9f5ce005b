"""``AvatarSession`` and the calls that it makes."""
