"""What ACT has, told to those who would rather subscribe than poll: events go to RabbitMQ after they are on disk."""
