"""What menus, settings and messages of free programs say, in many languages beside English."""
