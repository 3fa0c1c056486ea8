"""What goes over the network: HTTPS, Git's protocol, packs, and AWS's sign-in."""
