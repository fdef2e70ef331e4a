"""The application: when, and in which order; no rules about Docker or Cloudly."""
