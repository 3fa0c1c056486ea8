"""What happens to a mirror: up, down, rotate, status. It joins both clouds."""
