"""What commands do to mirrors, for one and for five hundred: read both clouds, plan, show, apply."""
