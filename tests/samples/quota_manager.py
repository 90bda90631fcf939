class QuotaManager:
    def __init__(self, api_client):
        self.api = api_client
    
    def create_quota(self, tenant_id, product_id, max_licenses, expires_at=None):
        data = {
            'tenant': tenant_id,
            'software_product': product_id,
            'max_licenses': max_licenses
        }
        if expires_at:
            data['expires_at'] = expires_at
        
        return self.api.api_call('/admin/quotas/', method='POST', json=data)
    
    def get_quota_alerts(self, threshold=0.9):
        """获取使用率超过阈值的配额"""
        quotas = self.api.api_call(f'/admin/quotas/?usage_rate_gte={threshold}')
        return quotas['data']['results']
    
    def extend_quota_expiry(self, quota_id, new_expiry_date):
        return self.api.api_call(f'/admin/quotas/{quota_id}/', 
                               method='PATCH', 
                               json={'expires_at': new_expiry_date})

# 使用示例
quota_manager = QuotaManager(api_client)

# 为租户创建产品配额
new_quota = quota_manager.create_quota(
    tenant_id=2,
    product_id=1,
    max_licenses=500,
    expires_at='2024-12-31T23:59:59Z'
)

# 检查高使用率配额
high_usage = quota_manager.get_quota_alerts(threshold=0.85)
for quota in high_usage:
    print(f"配额 {quota['id']} 使用率: {quota['usage_rate']:.1f}%")
