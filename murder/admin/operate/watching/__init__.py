"""What a monitoring system is given to watch a murder with: a dashboard, and rules for when to call somebody."""
