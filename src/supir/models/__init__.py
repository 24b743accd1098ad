"""The networks: adaptor, connectors, UNet, autoencoders, text towers. They see neither options nor file paths."""
