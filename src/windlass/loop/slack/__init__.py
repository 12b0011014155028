"""A model or an assistant in Slack: it answers where it is asked, with sources as links, and hears what people say."""
