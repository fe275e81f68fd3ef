"""What happens with 10, 100 and 1,000 workers: costs measured here, put together by a simulation. See docs/scale.md."""
