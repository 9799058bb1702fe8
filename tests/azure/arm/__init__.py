"""management.azure.com: Azure Resource Manager and the services behind it."""
