"""What reports of detections say, and how they are drawn."""
